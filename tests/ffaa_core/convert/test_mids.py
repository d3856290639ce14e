"""`mids.pth` as published becomes `mids/`, at any size, and what is wrong with it is named."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ffaa_core.convert.mids import MidsSource
from ffaa_core.convert.text import TextSource
from ffaa_core.convert.vision import VisionSource
from ffaa_core.errors import BundleError
from ffaa_core.mids import MidsConfig
from tests.ffaa_core.convert import published_files as published
from tests.ffaa_core.convert.published_files import Sizes, Tensors

SIZES = Sizes()

Encoders = tuple[VisionSource, TextSource]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Encoders:
    return _encoders(tmp_path_factory.mktemp("encoders"), SIZES)


def _encoders(folder: Path, sizes: Sizes) -> Encoders:
    published.write_clip(folder / "clip", sizes)
    published.write_t5(folder / "t5", sizes)
    return VisionSource(folder / "clip"), TextSource(folder / "t5")


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_every_tensor_is_kept_under_its_name_here(prefix: str, encoders: Encoders, tmp_path: Path) -> None:
    source = published.write_mids(tmp_path / "mids.pth", SIZES)
    source = {name.removeprefix("module."): tensor for name, tensor in source.items()}
    torch.save({prefix + name: tensor for name, tensor in source.items()}, tmp_path / "mids.pth")
    MidsSource(tmp_path / "mids.pth", *encoders).write(tmp_path / "mids")
    found = load_file(tmp_path / "mids" / "model.safetensors")
    ours = {name: tensor for name, tensor in source.items() if not name.startswith("image_encoder.")}
    for theirs, block in (
        ("vision_model.encoder.layers.1", "transformer.resblocks.1"),
        ("vision_model.encoder.layers.2", "transformer.resblocks.2"),
    ):
        ours |= _open_clip_block(source, f"image_encoder.{theirs}", f"image_encoder.{block}")
    assert found.keys() == ours.keys()
    assert all(torch.equal(found[name], ours[name]) for name in ours)
    config = json.loads((tmp_path / "mids" / "config.json").read_text())
    assert config == {"heads": 8, "self_attention_layers": 3, "trained_blocks": 2}


def _open_clip_block(source: Tensors, theirs: str, ours: str) -> Tensors:
    """By hand, name by name."""
    block = {}
    for kind in ("weight", "bias"):
        query, key, value = (source[f"{theirs}.self_attn.{part}_proj.{kind}"] for part in "qkv")
        block[f"{ours}.attn.in_proj_{kind}"] = torch.cat([query, key, value])
        block[f"{ours}.attn.out_proj.{kind}"] = source[f"{theirs}.self_attn.out_proj.{kind}"]
        block[f"{ours}.ln_1.{kind}"] = source[f"{theirs}.layer_norm1.{kind}"]
        block[f"{ours}.ln_2.{kind}"] = source[f"{theirs}.layer_norm2.{kind}"]
        block[f"{ours}.mlp.c_fc.{kind}"] = source[f"{theirs}.mlp.fc1.{kind}"]
        block[f"{ours}.mlp.c_proj.{kind}"] = source[f"{theirs}.mlp.fc2.{kind}"]
    return block


def test_more_blocks_and_layers_than_published_are_seen_in_the_keys(
    encoders: Encoders, tmp_path: Path
) -> None:
    published.write_mids(tmp_path / "mids.pth", SIZES, blocks=3, layers=4)
    config = MidsSource(tmp_path / "mids.pth", *encoders).config
    assert config == MidsConfig(self_attention_layers=4, trained_blocks=3)


def test_fewer_are_taken_for_missing_unless_it_is_said(encoders: Encoders, tmp_path: Path) -> None:
    published.write_mids(tmp_path / "mids.pth", SIZES, blocks=1, layers=2)
    with pytest.raises(BundleError) as error:
        MidsSource(tmp_path / "mids.pth", *encoders)
    assert "missing: module.se_attn.2.norm.weight (64,)" in str(error.value)
    assert "missing: module.image_encoder.vision_model.encoder.layers.1.mlp.fc1.bias (512,)" in str(
        error.value
    )
    said = MidsConfig(self_attention_layers=2, trained_blocks=1)
    assert MidsSource(tmp_path / "mids.pth", *encoders, config=said).config == said


CORRUPTIONS: list[tuple[dict[str, Tensor | None], list[str]]] = [
    ({"module.classifier.bias": None}, ["missing: module.classifier.bias (4,)"]),
    (
        {"module.image_encoder.vision_model.encoder.layers.2.self_attn.v_proj.weight": None},
        ["missing: module.image_encoder.vision_model.encoder.layers.2.self_attn.v_proj.weight (128, 128)"],
    ),
    ({"module.classifier.scale": torch.zeros(1)}, ["unknown: module.classifier.scale (1,)"]),
    ({"classifier.bias": torch.zeros(4)}, ["unknown: classifier.bias (4,)"]),
    (
        {"module.fusion_block.lr_tii1": torch.zeros(1, 1, 64)},
        ["of the wrong shape: module.fusion_block.lr_tii1 (1, 1, 64), expected (1, 64)"],
    ),
    (
        {
            "module.se_attn.1.norm.bias": None,
            "module.se_attn.2.norm.bias": None,
            "module.text_encoder.shared.weight": torch.zeros(2),
            "module.image_encoder.vision_model.encoder.layers.7.layer_norm1.bias": torch.zeros(128),
            "module.projector_layer2.weight": torch.zeros(64, 64),
        },
        [
            "missing: module.se_attn.{1..2}.norm.bias (64,)",
            "unknown: module.text_encoder.shared.weight (2,)",
            "unknown: module.image_encoder.vision_model.encoder.layers.7.layer_norm1.bias (128,)",
            "of the wrong shape: module.projector_layer2.weight (64, 64), expected (64, 128)",
        ],
    ),
]


@pytest.mark.parametrize(("changes", "told"), CORRUPTIONS)
def test_whatever_is_wrong_with_it_is_named(
    changes: dict[str, Tensor | None], told: list[str], encoders: Encoders, tmp_path: Path
) -> None:
    file = tmp_path / "mids.pth"
    tensors = published.changed(published.write_mids(file, SIZES), changes)
    torch.save(tensors, file)
    with pytest.raises(BundleError) as error:
        MidsSource(file, *encoders)
    assert all(line in str(error.value) for line in [*told, f"MIDS in {file}"])


def test_a_truncated_file_is_refused_by_name(encoders: Encoders, tmp_path: Path) -> None:
    file = tmp_path / "mids.pth"
    published.write_mids(file, SIZES)
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(BundleError, match=f"{file} is truncated"):
        MidsSource(file, *encoders)


def test_encoders_of_another_size_are_refused_with_what_does_not_fit(tmp_path: Path) -> None:
    published.write_mids(tmp_path / "mids.pth", SIZES)
    wide = _encoders(tmp_path, Sizes(width=192, image_heads=3))
    with pytest.raises(
        BundleError, match=r"module\.projector_layer1\.weight \(64, 128\), expected \(64, 192\)"
    ):
        MidsSource(tmp_path / "mids.pth", *wide)


def test_heads_that_do_not_divide_the_texts_width_are_refused(encoders: Encoders, tmp_path: Path) -> None:
    published.write_mids(tmp_path / "mids.pth", SIZES)
    with pytest.raises(BundleError, match="no MIDS of 7 heads"):
        MidsSource(tmp_path / "mids.pth", *encoders, config=MidsConfig(heads=7))
