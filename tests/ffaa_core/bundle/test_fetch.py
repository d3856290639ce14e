"""A bundle behind a URL is fetched once, checked, and fetched again only when it has changed."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

from ffaa_core.bundle import Bundle
from ffaa_core.bundle.bundle import write_bundle_json
from ffaa_core.errors import BundleError, StorageError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def local(tmp_path: Path) -> Bundle:
    for part in ("mllm", "mids", "vision", "text"):
        (tmp_path / "local" / part / "a[1]").mkdir(parents=True)
        (tmp_path / "local" / part / "a[1]" / "weights*").write_text(part)
    return write_bundle_json(tmp_path / "local", provenance={})


@pytest.fixture
def in_memory(local: Bundle) -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    memory.put(f"{local.path}/", "/models/small/", recursive=True)
    yield "memory://models/small"
    memory.rm("/models", recursive=True)


def test_a_url_is_fetched_into_the_cache_and_is_the_same_bundle(
    local: Bundle, in_memory: str, own_cache: Path
) -> None:
    fetched = Bundle.open(in_memory)
    assert own_cache in fetched.path.parents
    assert fetched.manifest == local.manifest
    fetched.verify()


def test_files_are_fetched_once(in_memory: str) -> None:
    first = Bundle.open(in_memory)
    memory = fsspec.filesystem("memory")
    memory.rm("/models/small/mids", recursive=True)
    assert Bundle.open(f"{in_memory}/") == first


def test_a_bundle_replaced_under_its_url_is_fetched_again(local: Bundle, in_memory: str) -> None:
    first = Bundle.open(in_memory)
    (local.mids / "a[1]" / "weights*").write_text("other")
    write_bundle_json(local.path, provenance={})
    fsspec.filesystem("memory").put(f"{local.path}/", "/models/small/", recursive=True)
    second = Bundle.open(in_memory)
    assert second.digests["mids"] != first.digests["mids"]


def test_what_was_changed_on_the_way_is_refused_and_not_kept(in_memory: str, own_cache: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/models/small/mids/a[1]/weights*", b"SDIM")
    with pytest.raises(BundleError, match=r"mids/a\[1\]/weights\* differs"):
        Bundle.open(in_memory)
    memory.pipe_file("/models/small/mids/a[1]/weights*", b"mids")
    Bundle.open(in_memory).verify()


def test_where_there_is_none_or_half_of_one_the_error_says_so(in_memory: str) -> None:
    with pytest.raises(BundleError, match="no complete bundle at memory://models/none"):
        Bundle.open("memory://models/none")
    fsspec.filesystem("memory").rm("/models/small/text", recursive=True)
    with pytest.raises(BundleError, match="no complete bundle at memory://models/small"):
        Bundle.open(in_memory)


def test_a_url_of_an_unknown_kind_is_a_usage_error() -> None:
    with pytest.raises(BundleError, match="cannot be opened"):
        Bundle.open("nosuch://somewhere/bundle")


def test_storage_that_fails_is_a_storage_error(in_memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise TimeoutError("too slow")

    monkeypatch.setattr(fsspec.filesystem("memory"), "get_file", fail)
    with pytest.raises(StorageError, match="too slow"):
        Bundle.open(in_memory)


def test_a_bundle_on_s3_is_fetched(local: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        for file in local.path.rglob("*"):
            if file.is_file():
                client.upload_file(str(file), "models", f"small/{file.relative_to(local.path)}")
        assert Bundle.open("s3://models/small").digests == local.digests
        with pytest.raises(BundleError, match="no complete bundle at s3://models/none"):
            Bundle.open("s3://models/none")
    finally:
        server.stop()
