"""Sources: paths are used as they are, objects are fetched once, and what is nowhere is said to be so."""

from pathlib import Path

import pytest
import torch

from ffaa_core.convert.sources import find_source
from ffaa_core.convert.weights import Weights
from ffaa_core.errors import BundleError, ConfigurationError
from ffaa_core.storage import Store, open_store
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


def test_a_name_that_is_neither_here_nor_on_the_hub_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BundleError, match=r"no file or folder team/model here, and the hub does not give it"):
        find_source("team/model")


def test_what_can_be_no_hub_id_is_not_looked_for_there() -> None:
    with pytest.raises(BundleError, match=r"there is no file or folder \./weights here|folder \./weights\."):
        find_source("./weights")
