"""Sources: paths are used as they are, objects are fetched once, and what is nowhere is said to be so."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ffaa_core.convert.sources import find_source
from ffaa_core.convert.weights import Weights
from ffaa_core.errors import BundleError, ConfigurationError
from ffaa_core.storage import Store, open_store
from tests.fixtures.hub import COMMIT, hub
from tests.fixtures.s3 import S3Server, use


@pytest.fixture
def remote(moto_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    use(moto_server, monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = open_store(f"s3://{moto_server.fresh_bucket()}/models")
    torch.save({"a": torch.ones(2)}, tmp_path / "mids.pth")
    store.write("t5/pytorch_model.bin", tmp_path / "mids.pth")
    store.write("t5/config.json", b"{}")
    store.write("t5-large/config.json", b"another")
    for unused in ("README.md", "optimizer.pt", "onnx/model.bin"):
        store.write(f"t5/{unused}", b"not needed")
    return store


def test_a_path_is_used_as_it_is(tmp_path: Path) -> None:
    assert find_source(str(tmp_path)).path == tmp_path


@pytest.mark.parametrize("end", ["", "/"])
def test_what_lies_below_a_prefix_is_fetched_and_nothing_beside_it(remote: Store, end: str) -> None:
    source = find_source(remote.uri_of("t5") + end)
    assert sorted(file.name for file in source.path.iterdir()) == ["config.json", "pytorch_model.bin"]
    assert torch.equal(Weights.open(source.path).read("a"), torch.ones(2))
    assert source.provenance()["sha256"].keys() == {"config.json", "pytorch_model.bin"}


def test_an_object_is_a_file(remote: Store) -> None:
    source = find_source(remote.uri_of("t5/pytorch_model.bin"))
    assert source.path.name == "pytorch_model.bin"
    assert Weights.open(source.path).shapes == {"a": (2,)}


def test_objects_are_fetched_once_and_again_when_replaced(
    remote: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    url = remote.uri_of("t5")
    find_source(url)
    assert "fetching" in capsys.readouterr().err
    find_source(url)
    assert capsys.readouterr().err == ""
    remote.write("t5/config.json", b"[]")
    assert (find_source(url).path / "config.json").read_bytes() == b"[]"


def test_an_empty_prefix_and_another_kind_of_storage_are_refused(remote: Store) -> None:
    with pytest.raises(BundleError, match=r"nothing lies at s3://.*/models/t6"):
        find_source(remote.uri_of("t6"))
    with pytest.raises(ConfigurationError, match="gs:// is not supported"):
        find_source("gs://bucket/t5")


@pytest.fixture
def of_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a served hub's models."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "hub"


def names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_weights_that_the_hub_has_twice_are_fetched_in_safetensors(
    of_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for repo, files in {
        "team/both": ("model.safetensors", "pytorch_model.bin", "config.json"),
        "team/pickled": ("other.safetensors", "pytorch_model.bin", "config.json"),
    }.items():
        (of_hub / repo).mkdir(parents=True)
        for name in files:
            (of_hub / repo / name).write_bytes(b"content")
    with served(of_hub, monkeypatch):
        assert names_of(find_source("team/both").path) == ["config.json", "model.safetensors"]
        assert "pytorch_model.bin" in names_of(find_source("team/pickled").path)


def test_a_file_in_a_folder_of_the_hub_has_the_models_commit(
    of_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (of_hub / "team" / "ffaa" / "v1").mkdir(parents=True)
    torch.save({"a": torch.ones(2)}, of_hub / "team" / "ffaa" / "v1" / "mids.pth")
    with served(of_hub, monkeypatch):
        source = find_source("team/ffaa/v1/mids.pth")
    assert source.commit == COMMIT
    assert Weights.open(source.path).shapes == {"a": (2,)}


def test_a_model_that_the_hub_lacks_is_told_with_what_else_may_be_named(
    of_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_hub.mkdir()
    with (
        served(of_hub, monkeypatch),
        pytest.raises(BundleError, match=r"no file or folder team/t6 here, and the hub .*hf auth login"),
    ):
        find_source("team/t6")


def test_a_hub_that_cannot_be_reached_is_told(of_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        point_at(f"http://127.0.0.1:{closed.getsockname()[1]}", monkeypatch)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        with pytest.raises(
            BundleError, match=r"no file or folder team/model here, and the hub does not give it"
        ):
            find_source("team/model")


def test_what_can_be_no_hub_id_is_not_looked_for_there() -> None:
    with pytest.raises(BundleError, match=r"there is no file or folder \./weights\."):
        find_source("./weights")


@contextmanager
def served(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with hub(root) as (address, _):
        point_at(address, monkeypatch)
        yield


def point_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
