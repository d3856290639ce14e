"""A bundle on S3 is fetched once, checked, and fetched again only when it has changed."""

import hashlib
from pathlib import Path

import pytest

from ffaa_core.bundle import Bundle, resolve_bundle, resolve_manifest
from ffaa_core.bundle.bundle import write_bundle_json
from ffaa_core.cli import main
from ffaa_core.errors import BundleError, ConfigurationError
from ffaa_core.storage import Store, open_store
from tests.fixtures.s3 import S3Server, use


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
def remote(local: Bundle, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    use(moto_server, monkeypatch)
    store = open_store(f"s3://{moto_server.fresh_bucket()}/models/small")
    upload(local, store)
    return store


def upload(bundle: Bundle, store: Store) -> None:
    for file in bundle.path.rglob("*"):
        if file.is_file():
            store.write(file.relative_to(bundle.path).as_posix(), file)


def test_a_url_is_fetched_into_the_cache_and_is_the_same_bundle(
    local: Bundle, remote: Store, own_cache: Path
) -> None:
    fetched = Bundle.open(remote.uri)
    assert own_cache in fetched.path.parents
    assert fetched.location == remote.uri
    assert fetched.manifest == local.manifest
    fetched.verify()


def test_files_are_fetched_once(remote: Store) -> None:
    first = Bundle.open(remote.uri)
    remote.write("mids/a[1]/weights*", b"not looked at again")
    assert Bundle.open(f"{remote.uri}/").path == first.path


def test_a_bundle_replaced_under_its_url_is_fetched_again(local: Bundle, remote: Store) -> None:
    first = Bundle.open(remote.uri)
    (local.mids / "a[1]" / "weights*").write_text("other")
    upload(write_bundle_json(local.path, provenance={}), remote)
    assert Bundle.open(remote.uri).digests["mids"] != first.digests["mids"]


def test_what_is_not_as_its_digests_say_is_refused_and_not_kept(remote: Store) -> None:
    remote.write("mids/a[1]/weights*", b"SDIM")
    with pytest.raises(BundleError, match=r"s3://.*/models/small is not what.*mids/a\[1\]/weights\* differs"):
        Bundle.open(remote.uri)
    remote.write("mids/a[1]/weights*", b"mids")
    Bundle.open(remote.uri).verify()


def test_where_there_is_none_or_half_of_one_the_error_says_so(local: Bundle, remote: Store) -> None:
    with pytest.raises(BundleError, match=r"no complete bundle at .*/none"):
        Bundle.open(f"{remote.uri}/none")
    (local.text / "late").write_text("never uploaded")
    manifest = write_bundle_json(local.path, provenance={}).path / "bundle.json"
    remote.write("bundle.json", manifest)
    with pytest.raises(BundleError, match=r"no complete bundle at .*text/late"):
        Bundle.open(remote.uri)


def test_what_a_bundle_says_of_itself_is_read_without_fetching_it(
    local: Bundle, remote: Store, own_cache: Path
) -> None:
    assert resolve_manifest(remote.uri) == (remote.uri, local.manifest)
    assert not own_cache.exists()
    assert resolve_manifest(f"file://{local.path}") == (str(local.path), local.manifest)
    with pytest.raises(BundleError, match=r"no bundle at .*/none"):
        resolve_manifest(f"{remote.uri}/none")


def test_the_environments_url_must_have_the_environments_digest(
    local: Bundle, remote: Store, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = hashlib.sha256((local.path / "bundle.json").read_bytes()).hexdigest()
    monkeypatch.setenv("FFAA_BUNDLE", remote.uri)
    monkeypatch.setenv("FFAA_BUNDLE_SHA256", "0" * 64)
    for resolved in (resolve_bundle, resolve_manifest):
        with pytest.raises(BundleError, match=f"s3://.*/bundle.json has the sha256 {found}, not {'0' * 64}"):
            resolved(None)
    assert not (own_cache / "ffaa" / "bundles").exists()
    monkeypatch.setenv("FFAA_BUNDLE_SHA256", found)
    assert resolve_manifest(None) == (remote.uri, local.manifest)
    assert resolve_bundle(None).manifest == local.manifest


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ftp:// is not supported"):
        Bundle.open("ftp://somewhere/bundle")


def test_a_file_url_is_opened_in_place(local: Bundle, own_cache: Path) -> None:
    assert Bundle.open(f"file://{local.path}") == local
    assert not own_cache.exists()


def test_the_command_fetches_the_bundle_of_this_digest_and_no_other(
    local: Bundle, remote: Store, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256((local.path / "bundle.json").read_bytes()).hexdigest()
    assert main(["bundle", "fetch", remote.uri, "--sha256", "0" * 64]) == 2
    assert digest in capsys.readouterr().err
    assert not (own_cache / "ffaa" / "bundles").exists()
    assert main(["bundle", "fetch", remote.uri, "--sha256", digest]) == 0
    assert str(Bundle.open(remote.uri).path) in capsys.readouterr().out


def test_another_digest_is_refused_also_where_the_cache_has_the_bundle(remote: Store) -> None:
    Bundle.open(remote.uri)
    assert main(["bundle", "fetch", remote.uri, "--sha256", "0" * 64]) == 2
