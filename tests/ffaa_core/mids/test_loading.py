"""MIDS is loaded whole or not at all, and an error names the part that does not fit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ffaa_core.bundle import Bundle
from ffaa_core.errors import BundleError
from ffaa_core.mids import load


@pytest.fixture
def own_copy(demo_bundle: Bundle, tmp_path: Path) -> Bundle:
    return Bundle.open(shutil.copytree(demo_bundle.path, tmp_path / "bundle"))


def test_what_is_loaded_is_what_the_parts_hold_and_ready_to_use(demo_bundle: Bundle) -> None:
    network, _ = load(demo_bundle)
    state = network.state_dict()
    for name, weight in load_file(demo_bundle.mids / "model.safetensors").items():
        assert torch.equal(state[name], weight)
    for name, weight in load_file(demo_bundle.vision / "open_clip_model.safetensors").items():
        assert torch.equal(state[name.replace("visual.", "image_encoder.", 1)], weight)
    assert not network.training
    assert {weight.dtype for weight in state.values()} == {torch.float32}


def test_trained_blocks_in_mids_replace_those_of_the_image_encoder(own_copy: Bundle) -> None:
    file = own_copy.mids / "model.safetensors"
    weights = load_file(file)
    name = "image_encoder.transformer.resblocks.3.ln_1.weight"
    weights[name] = weights[name] + 1
    save_file(weights, file)
    assert torch.equal(load(own_copy)[0].state_dict()[name], weights[name])


def test_a_missing_or_unknown_weight_is_refused_by_name(own_copy: Bundle) -> None:
    file = own_copy.mids / "model.safetensors"
    weights = load_file(file)
    weights["classifier.wait"] = weights.pop("classifier.weight")
    save_file(weights, file)
    with pytest.raises(
        BundleError, match=r"mids cannot be loaded: .*'classifier\.weight'.*'classifier\.wait'"
    ):
        load(own_copy)


def test_an_unknown_setting_is_refused_by_name(own_copy: Bundle) -> None:
    (own_copy.mids / "config.json").write_text(json.dumps({"heads": 8, "tails": 1}))
    with pytest.raises(BundleError, match="tails"):
        load(own_copy)


@pytest.mark.parametrize(
    "part", ["vision/open_clip_model.safetensors", "text/config.json", "mids/model.safetensors"]
)
def test_a_damaged_part_is_refused_by_name(own_copy: Bundle, part: str) -> None:
    (own_copy.path / part).write_bytes(b"not what it was")
    with pytest.raises(BundleError, match=part.split("/")[0]):
        load(own_copy)
