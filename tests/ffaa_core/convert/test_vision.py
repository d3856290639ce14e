"""CLIP from whoever publishes it becomes the same `vision/`, and what is wrong with it is named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel

from ffaa_core.convert.vision import VisionSource
from ffaa_core.errors import BundleError
from ffaa_core.mids.loading import load_vision
from tests.ffaa_core.convert import published_files as published
from tests.ffaa_core.convert.published_files import Sizes

SIZES = Sizes()
CLIP = published.clip_tensors(SIZES)
OPENAI = published.openai_tensors(CLIP)
TOWER = {name: tensor for name, tensor in OPENAI.items() if name.startswith("visual.")}

Writer = Callable[[Path], Path]
"""Writes CLIP as someone publishes it into a folder, and says what `--vision` would be."""


def transformers_folder(folder: Path) -> Path:
    published.write_clip(folder, SIZES)
    return folder


def transformers_model(folder: Path) -> Path:
    """As today's Transformers saves it."""
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8}
    config = CLIPConfig(
        vision_config=published.vision_config(SIZES), text_config=text, projection_dim=SIZES.embed_dim
    )
    return _saved(CLIPModel(config), folder)


def transformers_tower(folder: Path) -> Path:
    return _saved(CLIPVisionModel(CLIPVisionConfig(**published.vision_config(SIZES))), folder)


def _saved(model: CLIPModel | CLIPVisionModel, folder: Path) -> Path:
    model.load_state_dict(
        {
            name: CLIP.get(name, CLIP.get(f"vision_model.{name}", tensor))
            for name, tensor in model.state_dict().items()
            if not name.startswith("text_model.")
        },
        strict=False,
    )
    model.save_pretrained(folder)
    return folder


def openai_archive(folder: Path) -> Path:
    published.write_torchscript(folder / "ViT-L-14-336px.pt", OPENAI)
    return folder / "ViT-L-14-336px.pt"


def openai_state_dict(folder: Path) -> Path:
    torch.save(OPENAI, folder / "clip.pt")
    return folder / "clip.pt"


def open_clip_folder(folder: Path) -> Path:
    save_file(OPENAI, folder / "open_clip_model.safetensors")
    _write_open_clip_config(folder)
    return folder


def open_clip_file(folder: Path) -> Path:
    """Of its newer models, whose text tower has names of its own."""
    torch.save(TOWER | {"text.ln_final.bias": torch.zeros(8)}, folder / "open_clip_pytorch_model.bin")
    _write_open_clip_config(folder)
    return folder / "open_clip_pytorch_model.bin"


def _write_open_clip_config(folder: Path) -> None:
    vision = {"image_size": 336, "patch_size": 14, "layers": SIZES.image_layers, "width": SIZES.width}
    config = {"embed_dim": SIZES.embed_dim, "quick_gelu": True, "vision_cfg": vision, "text_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))


@pytest.mark.parametrize(
    "write",
    [
        transformers_folder,
        transformers_model,
        transformers_tower,
        openai_archive,
        openai_state_dict,
        open_clip_folder,
        open_clip_file,
    ],
)
def test_whoever_publishes_it_the_vision_part_is_the_same_tensor_for_tensor(
    write: Writer, tmp_path: Path
) -> None:
    VisionSource(write(tmp_path)).write(tmp_path / "vision")
    found = load_file(tmp_path / "vision" / "open_clip_model.safetensors")
    expected = dict(TOWER)
    if write is transformers_tower:
        expected["visual.proj"] = torch.zeros(SIZES.width, SIZES.embed_dim)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    visual = load_vision(tmp_path / "vision")
    assert [visual.transformer.resblocks[0].attn.num_heads, len(visual.transformer.resblocks)] == [2, 3]
    assert type(visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_of_an_open_clip_folder_it_is_open_clips_file(file: str, tmp_path: Path) -> None:
    """The hub's folders have the same tower beside it as timm names it."""
    (save_file if file.endswith(".safetensors") else torch.save)(OPENAI, tmp_path / file)
    _write_open_clip_config(tmp_path)
    save_file({"blocks.0.attn.qkv.weight": torch.ones(384, 128)}, tmp_path / "model.safetensors")
    VisionSource(tmp_path).write(tmp_path / "vision")
    found = load_file(tmp_path / "vision" / "open_clip_model.safetensors")
    assert all(torch.equal(found[name], TOWER[name]) for name in TOWER)


def test_the_number_of_heads_is_that_of_the_configuration(tmp_path: Path) -> None:
    published.write_clip(tmp_path, Sizes(image_heads=4))
    VisionSource(tmp_path).write(tmp_path / "vision")
    assert load_vision(tmp_path / "vision").transformer.resblocks[0].attn.num_heads == 4


def test_openais_own_configuration_on_the_hub_is_read(tmp_path: Path) -> None:
    """Long, of Transformers 4.21, with all that it had for generation, and each model's sizes twice."""
    published.write_clip(tmp_path, SIZES)
    (tmp_path / "config.json").write_text(json.dumps(published.openai_hub_config(SIZES)))
    VisionSource(tmp_path).write(tmp_path / "vision")
    found = load_file(tmp_path / "vision" / "open_clip_model.safetensors")
    assert all(torch.equal(found[name], TOWER[name]) for name in TOWER)
    assert load_vision(tmp_path / "vision").transformer.resblocks[0].attn.num_heads == SIZES.image_heads


def test_sizes_that_are_said_twice_are_read_as_transformers_reads_them(tmp_path: Path) -> None:
    config = published.openai_hub_config(SIZES)
    config["vision_config"]["num_attention_heads"] = 1
    published.write_clip(tmp_path, SIZES)
    (tmp_path / "config.json").write_text(json.dumps(config))
    theirs = CLIPConfig.from_pretrained(tmp_path).vision_config.num_attention_heads
    VisionSource(tmp_path).write(tmp_path / "vision")
    assert load_vision(tmp_path / "vision").transformer.resblocks[0].attn.num_heads == theirs == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_precision_of_the_source_is_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.save({name: tensor.to(dtype) for name, tensor in OPENAI.items()}, tmp_path / "clip.pt")
    VisionSource(tmp_path / "clip.pt").write(tmp_path / "vision")
    found = load_file(tmp_path / "vision" / "open_clip_model.safetensors")
    assert all(torch.equal(found[name], TOWER[name].to(dtype)) for name in TOWER)


CORRUPTIONS: list[tuple[dict[str, Tensor | None], list[str]]] = [
    (
        {"vision_model.encoder.layers.1.self_attn.k_proj.weight": None},
        ["missing: vision_model.encoder.layers.1.self_attn.k_proj.weight (128, 128)"],
    ),
    (
        {"vision_model.embeddings.patch_embedding.weight": None, "visual_projection.weight": None},
        [
            "vision_model.embeddings.patch_embedding.weight (128, 3, 14, 14)",
            "visual_projection.weight (64, 128)",
        ],
    ),
    (
        {"vision_model.encoder.layers.2.mlp.fc3.bias": torch.zeros(4)},
        ["unknown: vision_model.encoder.layers.2.mlp.fc3.bias (4,)"],
    ),
    (
        {"vision_model.encoder.layers.0.self_attn.q_proj.bias": torch.zeros(7)},
        ["of the wrong shape: vision_model.encoder.layers.0.self_attn.q_proj.bias (7,), expected (128,)"],
    ),
    (
        {
            "vision_model.post_layernorm.bias": None,
            "language_model.layers.0.weight": torch.zeros(1),
            "visual_projection.weight": torch.zeros(64, 64),
        },
        [
            "missing: vision_model.post_layernorm.bias (128,)",
            "unknown: language_model.layers.0.weight (1,)",
            "of the wrong shape: visual_projection.weight (64, 64), expected (64, 128)",
        ],
    ),
]


@pytest.mark.parametrize(("changes", "told"), CORRUPTIONS)
def test_whatever_is_wrong_with_transformers_clip_is_named(
    changes: dict[str, Tensor | None], told: list[str], tmp_path: Path
) -> None:
    published.write_clip(tmp_path, SIZES)
    torch.save(published.changed(CLIP, changes), tmp_path / "pytorch_model.bin")
    with pytest.raises(BundleError) as error:
        VisionSource(tmp_path)
    assert all(line in str(error.value) for line in [*told, f"CLIP in {tmp_path}"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"visual.transformer.resblocks.1.attn.in_proj_weight": None},
            ["missing: visual.transformer.resblocks.1.attn.in_proj_weight (384, 128)"],
        ),
        ({"visual.conv1.weight": None}, ["missing: visual.conv1.weight (128, 3, 14, 14)"]),
        ({"visual.conv2.weight": torch.zeros(3)}, ["unknown: visual.conv2.weight (3,)"]),
        (
            {"visual.ln_pre.bias": torch.zeros(5), "visual.ln_post.weight": torch.zeros(6)},
            ["visual.ln_pre.bias (5,), expected (128,)", "visual.ln_post.weight (6,), expected (128,)"],
        ),
        (
            {"visual.conv1.weight": torch.zeros(64, 3, 14, 14), "visual.proj": torch.zeros(5)},
            ["visual.conv1.weight (64, 3, 14, 14), expected (128, 3, 14, 14)", "visual.proj (5,), expected"],
        ),
    ],
)
def test_whatever_is_wrong_with_openais_clip_is_named(
    changes: dict[str, Tensor | None], told: list[str], tmp_path: Path
) -> None:
    torch.save(published.changed(OPENAI, changes), tmp_path / "clip.pt")
    with pytest.raises(BundleError) as error:
        VisionSource(tmp_path / "clip.pt")
    assert all(line in str(error.value) for line in [*told, f"CLIP in {tmp_path / 'clip.pt'}"])


def test_a_truncated_archive_is_refused_by_name(tmp_path: Path) -> None:
    file = openai_archive(tmp_path)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(BundleError, match=f"{file} is truncated"):
        VisionSource(file)


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("image_size", 224, "224 pixels, and MIDS shows it 336"),
        ("hidden_act", "relu", "hidden_act relu"),
        ("hidden_size", 0, "hidden_size 0"),
        ("num_attention_heads", 0, r"config\.json does not describe CLIP"),
        ("hidden_size", "wide", r"config\.json does not describe CLIP"),
        ("layer_norm_eps", 1e-6, "layer_norm_eps 1e-06"),
    ],
)
def test_a_clip_that_mids_cannot_use_is_refused(
    setting: str, value: object, told: str, tmp_path: Path
) -> None:
    published.write_clip(tmp_path, SIZES)
    vision = published.vision_config(SIZES) | {setting: value}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": vision}))
    with pytest.raises(BundleError, match=told):
        VisionSource(tmp_path)


def test_other_models_are_refused_as_such(tmp_path: Path) -> None:
    published.write_clip(tmp_path, SIZES)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(BundleError, match="model_type siglip"):
        VisionSource(tmp_path)
    torch.save({"lm_head.weight": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BundleError, match="is not CLIP"):
        VisionSource(tmp_path)
    _write_open_clip_config(tmp_path)
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"] |= {"layers": [1, 1, 1, 1], "width": 64, "patch_size": None}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    torch.save(TOWER, tmp_path / "clip.pt")
    with pytest.raises(BundleError, match="is no vision transformer"):
        VisionSource(tmp_path / "clip.pt")


@pytest.mark.parametrize("config", [{}, {"model_cfg": None}, {"model_cfg": {"vision_cfg": "ViT-L-14"}}])
def test_a_configuration_of_open_clip_of_another_shape_is_refused(config: object, tmp_path: Path) -> None:
    open_clip_folder(tmp_path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match=r"open_clip_config\.json does not describe CLIP"):
        VisionSource(tmp_path)
