"""`ffaa bundle convert`: published weights become a bundle, whole or not at all, and it says where from."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ffaa_core import mids
from ffaa_core.bundle import Bundle
from ffaa_core.cli import main
from ffaa_core.engine.checkpoint import tensors as bundle_tensors
from tests.ffaa_core.convert.published_set import Published, write_lora, write_published
from tests.fixtures.hub import COMMIT, hub


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, llama_tokenizer_model: Path) -> Published:
    return write_published(tmp_path_factory.mktemp("hub"), llama_tokenizer_model)


def convert(published: Published, out: Path, *options: str | Path, mllm: Path | None = None) -> int:
    given = [
        *("--mllm", mllm or published.mllm),
        *("--mids", published.mids),
        *("--vision", published.vision),
        *("--text", published.text),
    ]
    return main(["bundle", "convert", *map(str, [*given, *options, out])])


def test_published_weights_become_a_bundle_that_loads(
    published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(published, tmp_path / "bundle") == 0
    bundle = Bundle.open(tmp_path / "bundle")
    bundle.verify()
    assert bundle.adapter is None
    network, tokenizer = mids.load(bundle)
    assert tokenizer("An answer.")["input_ids"]
    assert not network.training
    told = capsys.readouterr()
    assert all(digest in told.out for digest in bundle.digests.values())
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_bundle_says_of_every_file_it_was_made_from_its_digest(
    published: Published, tmp_path: Path
) -> None:
    assert convert(published, tmp_path / "bundle") == 0
    origin = Bundle.open(tmp_path / "bundle").provenance["converted from"]
    assert origin["mids"]["sha256"] == {"mids.pth": hashlib.sha256(published.mids.read_bytes()).hexdigest()}
    shards = {path.name for path in published.mllm.glob("*.safetensors")}
    assert origin["mllm"]["sha256"].keys() == shards | {
        "config.json",
        "model.safetensors.index.json",
        "tokenizer.model",
    }
    assert origin["mllm"]["source"] == str(published.mllm)


def test_the_same_weights_give_the_same_digests(published: Published, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert convert(published, tmp_path / name) == 0
    assert Bundle.open(tmp_path / "one").digests == Bundle.open(tmp_path / "two").digests


@pytest.mark.parametrize("said", ["base", "adapter"])
def test_an_adapter_is_kept_and_its_projector_goes_into_the_base(
    published: Published, tmp_path: Path, said: str
) -> None:
    lora = tmp_path / "lora"
    projector = write_lora(lora, published.tensors)
    if said == "base":
        assert convert(published, tmp_path / "bundle", "--base", published.mllm, mllm=lora) == 0
    else:
        assert convert(published, tmp_path / "bundle", "--adapter", lora) == 0
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.adapter is not None
    found = dict(bundle_tensors(bundle.mllm))
    name = "language_model.model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(found[name], published.tensors[name])
    weight = projector["base_model.model.model.mm_projector.2.weight"]
    assert torch.equal(found["multi_modal_projector.linear_2.weight"], weight)


def test_merge_adds_the_adapter_and_leaves_no_part(published: Published, tmp_path: Path) -> None:
    write_lora(tmp_path / "lora", published.tensors)
    assert convert(published, tmp_path / "bundle", "--adapter", tmp_path / "lora", "--merge") == 0
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.adapter is None
    assert bundle.provenance["adapter merged"] is True
    lora = torch.load(tmp_path / "lora" / "adapter_model.bin", weights_only=True)
    a, b = (lora[f"base_model.model.model.layers.0.self_attn.q_proj.lora_{x}.weight"] for x in "AB")
    name = "language_model.model.layers.0.self_attn.q_proj.weight"
    expected = published.tensors[name] + 6 / 4 * (b @ a)
    torch.testing.assert_close(dict(bundle_tensors(bundle.mllm))[name], expected)


def test_what_is_wrong_with_several_sources_is_told_at_once_and_nothing_is_written(
    published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = torch.load(published.mids, weights_only=True)
    trained["module.projector"] = trained.pop("module.classifier.bias")
    torch.save(trained, tmp_path / "mids.pth")
    (tmp_path / "llava").mkdir()
    for file in published.mllm.iterdir():
        os.link(file, tmp_path / "llava" / file.name)
    config = json.loads((published.mllm / "config.json").read_text()) | {"num_hidden_layers": 3}
    (tmp_path / "llava" / "config.json").unlink()
    (tmp_path / "llava" / "config.json").write_text(json.dumps(config))
    code = convert(published, tmp_path / "bundle", "--mids", tmp_path / "mids.pth", mllm=tmp_path / "llava")
    assert code == 2
    told = capsys.readouterr().err
    assert "module.classifier.bias" in told
    assert "module.projector" in told
    assert "model.layers.2.self_attn.q_proj.weight" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llava", "mids.pth"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--merge"], "--merge needs an adapter"),
        (["--base", "x", "--adapter", "y"], "give one of them"),
        (["--text", "./nowhere"], "there is no file or folder ./nowhere"),
    ],
)
def test_wrong_usage_is_told(
    published: Published,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    told: str,
) -> None:
    assert convert(published, tmp_path / "bundle", *options) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_lora_folder_without_its_base_is_told_to_need_one(
    published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lora(tmp_path / "lora", published.tensors)
    assert convert(published, tmp_path / "bundle", mllm=tmp_path / "lora") == 2
    assert "--base" in capsys.readouterr().err


def test_an_adapters_projector_is_among_the_files_it_was_made_from(
    published: Published, tmp_path: Path
) -> None:
    write_lora(tmp_path / "lora", published.tensors)
    assert convert(published, tmp_path / "bundle", "--adapter", tmp_path / "lora") == 0
    origin = Bundle.open(tmp_path / "bundle").provenance["converted from"]["adapter"]
    assert origin["sha256"].keys() == {"adapter_config.json", "adapter_model.bin", "non_lora_trainables.bin"}


def test_a_link_and_the_working_directory_may_be_filled(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "volume")
    assert convert(published, tmp_path / "link") == 0
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert convert(published, Path()) == 0
    for name in ("volume", "here"):
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [
            *("bundle.json", "mids", "mllm", "text", "vision")
        ]


def test_a_disk_without_room_is_told_and_left_as_it_was(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    assert convert(published, tmp_path / "bundle") == 2
    assert "has 0.000 GB left" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_told_and_left_as_it_was(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ffaa_core.convert.text.TextSource.write", fail)
    assert convert(published, tmp_path / "bundle") == 75
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_models_of_a_hub_are_fetched_by_their_ids(published: Published, tmp_path: Path) -> None:
    root = published.mllm.parent.parent
    options = ["--mllm", "team/ffaa", "--mids", "team/ffaa/mids.pth"]
    options += ["--vision", "team/clip@main", "--text", "team/t5"]
    command = [sys.executable, "-m", "ffaa_core.cli", "bundle", "convert", *options]
    with hub(root) as (address, asked):
        here = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        subprocess.run([*command, str(tmp_path / "bundle")], env=here, check=True)
    without_network = here | {"HF_HUB_OFFLINE": "1"}
    subprocess.run([*command, str(tmp_path / "again")], env=without_network, check=True)
    fetched = [path for path in asked if path.startswith("team/ffaa/resolve/")]
    assert any(path.endswith(".safetensors") for path in fetched)
    assert not any(path.endswith("pytorch_model.bin") for path in fetched)
    assert convert(published, tmp_path / "local") == 0
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.digests == Bundle.open(tmp_path / "local").digests
    origin = bundle.provenance["converted from"]
    assert {part: (of["source"], of["commit"]) for part, of in origin.items()} == {
        "mllm": ("team/ffaa", COMMIT),
        "mids": ("team/ffaa/mids.pth", COMMIT),
        "vision": ("team/clip@main", COMMIT),
        "text": ("team/t5", COMMIT),
    }
