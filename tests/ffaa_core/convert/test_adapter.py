"""Adapters as LLaVA's training leaves them, converted: what PEFT and vLLM make of it, and what is refused."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ffaa_core.convert.adapter import AdapterSource
from ffaa_core.convert.mllm import MllmSource
from ffaa_core.convert.tokenizer import TokenizerSource
from ffaa_core.engine.checkpoint import published_name, tensor_shapes, tensors
from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.errors import AdapterError, BundleError
from ffaa_core.questions import Question, conversation, wording
from ffaa_core.settings import EngineSettings
from tests.ffaa_core.convert.published_set import untrained_lora
from tests.fixtures.engine import DemoModel, digest, drawn_crop

Tensors = dict[str, torch.Tensor]
Shapes = dict[str, tuple[int, ...]]

RANK, ALPHA = 8, 12
TARGETS = ["q_proj", "v_proj", "down_proj"]
PEFT = "base_model.model."
PROJECTOR = [f"mm_projector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")]
OURS = {
    "mm_projector.0": "multi_modal_projector.linear_1",
    "mm_projector.2": "multi_modal_projector.linear_2",
}


@dataclass
class Trained:
    """What LLaVA's training leaves, under its names without PEFT's before them. Tests change it."""

    lora: Tensors
    projector: Tensors
    tower: Tensors
    config: dict[str, Any] = field(
        default_factory=lambda: {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": RANK,
            "lora_alpha": ALPHA,
            "lora_dropout": 0.05,
            "bias": "none",
            "target_modules": TARGETS,
            "modules_to_save": None,
        }
    )

    def write(self, folder: Path, as_bin: bool = True) -> Path:
        folder.mkdir(exist_ok=True)
        lora = {PEFT + name: tensor for name, tensor in (self.tower | self.lora).items()}
        if as_bin:
            torch.save(lora, folder / "adapter_model.bin")
        else:
            save_file(lora, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(self.config))
        if self.projector:
            projector = {f"{PEFT}model.{name}": tensor for name, tensor in self.projector.items()}
            torch.save(projector, folder / "non_lora_trainables.bin")
        return folder

    def delta(self, module: str) -> torch.Tensor:
        """What it adds to a module's weight: the definition, in double precision."""
        a, b = (self.lora[f"{module}.lora_{letter}.weight"].double() for letter in "AB")
        return ALPHA / RANK * (b @ a)


@pytest.fixture(scope="module")
def shapes(demo_mllm: DemoModel) -> Shapes:
    """Of the base."""
    return tensor_shapes(demo_mllm.mllm)


@pytest.fixture
def trained(shapes: Shapes) -> Trained:
    """An adapter and a projector for the demo model."""
    random = torch.Generator().manual_seed(0)
    lora: Tensors = {}
    for name, shape in shapes.items():
        module = name.removeprefix("language_model.").removesuffix(".weight")
        if name.startswith("language_model.model.layers.") and module.endswith(tuple(TARGETS)):
            outputs, inputs = shape
            lora[f"{module}.lora_A.weight"] = torch.randn(RANK, inputs, generator=random) / inputs**0.5
            lora[f"{module}.lora_B.weight"] = torch.randn(outputs, RANK, generator=random) / RANK**0.5
    tower = untrained_lora(["q_proj", "v_proj"], RANK)
    projector = {name: torch.randn(shapes[ours_of(name)], generator=random) / 16 for name in PROJECTOR}
    return Trained(lora, projector, {f"model.{name}": tensor for name, tensor in tower.items()})


def ours_of(projector_name: str) -> str:
    module, _, kind = projector_name.rpartition(".")
    return f"{OURS[module]}.{kind}"


def peft_model(mllm: Path, adapter: Path) -> Any:
    from peft import PeftModel
    from transformers import LlavaForConditionalGeneration

    return PeftModel.from_pretrained(LlavaForConditionalGeneration.from_pretrained(mllm), str(adapter))


def test_the_projector_is_that_of_the_adapter_and_the_rest_is_the_bases(
    trained: Trained, demo_mllm: DemoModel, shapes: Shapes, tmp_path: Path
) -> None:
    source = AdapterSource(trained.write(tmp_path / "source"), shapes)
    write_base(demo_mllm, source, tmp_path / "mllm")
    expected = dict(tensors(demo_mllm.mllm))
    expected |= {ours_of(name): tensor for name, tensor in trained.projector.items()}
    written = dict(tensors(tmp_path / "mllm"))
    assert written.keys() == expected.keys()
    for name, tensor in written.items():
        assert torch.equal(tensor, expected[name]), name


def test_peft_finds_every_delta_of_the_source(
    trained: Trained, demo_mllm: DemoModel, shapes: Shapes, tmp_path: Path
) -> None:
    source = AdapterSource(trained.write(tmp_path / "source"), shapes)
    write_base(demo_mllm, source, tmp_path / "mllm")
    source.write(tmp_path / "adapter")
    changed = {
        name.removeprefix(PEFT): module.get_delta_weight("default")
        for name, module in peft_model(tmp_path / "mllm", tmp_path / "adapter").named_modules()
        if hasattr(module, "get_delta_weight")
    }
    modules = {name.rsplit(".", 2)[0] for name in trained.lora}
    assert {name.replace("model.language_model.", "model.") for name in changed} == modules
    for name, delta in changed.items():
        expected = trained.delta(name.replace("model.language_model.", "model."))
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(delta.double(), expected, rtol=0, atol=1e-5, msg=name)


def write_base(demo_mllm: DemoModel, source: AdapterSource, folder: Path, **options: Any) -> Path:
    """The demo model with the projector of the adapter."""
    tokenizer = TokenizerSource(demo_mllm.mllm)
    MllmSource(demo_mllm.mllm, tokenizer).write(folder, replace=source.projector, **options)
    tokenizer.write(folder)
    return folder


@pytest.mark.parametrize("use_rslora", [False, True])
def test_merging_gives_what_peft_merges(
    use_rslora: bool, trained: Trained, demo_mllm: DemoModel, shapes: Shapes, tmp_path: Path
) -> None:
    trained.config["use_rslora"] = use_rslora
    source = AdapterSource(trained.write(tmp_path / "source"), shapes)
    source.write(tmp_path / "adapter")
    write_base(demo_mllm, source, tmp_path / "mllm")
    write_base(demo_mllm, source, tmp_path / "merged", transform=source.adapter.merge)
    theirs = peft_model(tmp_path / "mllm", tmp_path / "adapter").merge_and_unload().state_dict()
    ours = dict(tensors(tmp_path / "merged"))
    assert ours.keys() == {published_name(name) for name in theirs}
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[published_name(name)], tensor, msg=name)
    unmerged = dict(tensors(tmp_path / "mllm"))
    assert sum(not torch.equal(ours[name], unmerged[name]) for name in ours) == len(trained.lora) / 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_merging_keeps_a_checkpoints_dtype(
    dtype: torch.dtype, trained: Trained, demo_mllm: DemoModel, shapes: Shapes, tmp_path: Path
) -> None:
    source = AdapterSource(trained.write(tmp_path / "source"), shapes)
    name = "language_model.model.layers.0.self_attn.q_proj.weight"
    weight = dict(tensors(demo_mllm.mllm))[name].to(dtype)
    merged = source.adapter.merge(name, weight)
    expected = weight.double() + trained.delta("model.layers.0.self_attn.q_proj")
    assert merged.dtype == dtype
    torch.testing.assert_close(merged, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."),
        lambda name: name.replace("model.layers.", "model.language_model.layers."),
        lambda name: name.replace("model.layers.", "language_model.model.layers."),
    ],
    ids=["default", "ours", "older"],
)
def test_all_names_of_an_adapter_become_the_same(
    rename: Callable[[str], str], trained: Trained, shapes: Shapes, tmp_path: Path
) -> None:
    AdapterSource(trained.write(tmp_path / "original"), shapes).write(tmp_path / "expected")
    trained.lora = {rename(name): tensor for name, tensor in trained.lora.items()}
    trained.tower = {rename(name): tensor for name, tensor in trained.tower.items()}
    AdapterSource(trained.write(tmp_path / "other", as_bin=False), shapes).write(tmp_path / "written")
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "written" / file).read_bytes() == (tmp_path / "expected" / file).read_bytes()
    names = load_file(tmp_path / "written" / "adapter_model.safetensors").keys()
    assert all(name.startswith(f"{PEFT}model.language_model.layers.") for name in names)


def test_a_projector_is_found_without_pefts_names_before_it(
    trained: Trained, shapes: Shapes, tmp_path: Path
) -> None:
    folder = trained.write(tmp_path / "source")
    torch.save(trained.projector | {"image_newline": torch.zeros(4)}, folder / "non_lora_trainables.bin")
    found = AdapterSource(folder, shapes).projector
    assert found.keys() == {ours_of(name) for name in trained.projector}
    for name, tensor in trained.projector.items():
        assert torch.equal(found[ours_of(name)], tensor)


def refused(trained: Trained, shapes: Shapes, folder: Path) -> str:
    with pytest.raises(BundleError) as error:
        AdapterSource(trained.write(folder), shapes)
    return str(error.value)


def test_every_unknown_key_is_named(trained: Trained, shapes: Shapes, tmp_path: Path) -> None:
    trained.lora["model.mm_projector.0.lora_A.weight"] = torch.ones(RANK, 64)
    trained.lora["model.layers.0.self_attn.q_proj.lora_magnitude_vector"] = torch.ones(128)
    message = refused(trained, shapes, tmp_path / "source")
    assert "model.mm_projector.0.lora_A.weight" in message
    assert "layers.0.self_attn.q_proj.lora_magnitude_vector" in message
    assert "Expected are names like" in message


def test_a_tower_that_was_trained_too_is_refused_by_name(
    trained: Trained, shapes: Shapes, tmp_path: Path
) -> None:
    of_tower = [name for name in trained.tower if ".1.self_attn.v_proj.lora_B" in name]
    trained.tower[of_tower[0]][3, 2] = 0.01
    message = refused(trained, shapes, tmp_path / "source")
    assert "vision_model.encoder.layers.1.self_attn.v_proj" in message
    assert "q_proj" not in message
    assert "Merge it" in message


def test_every_module_that_the_base_lacks_is_named(trained: Trained, shapes: Shapes, tmp_path: Path) -> None:
    trained.lora |= {
        name.replace("layers.1.", f"layers.{layer}."): tensor
        for name, tensor in trained.lora.items()
        for layer in (2, 3)
        if "layers.1." in name
    }
    message = refused(trained, shapes, tmp_path / "source")
    for target in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"):
        assert f"language_model.model.layers.{{2..3}}.{target}" in message


def test_every_wrong_shape_is_named_with_what_was_expected(
    trained: Trained, shapes: Shapes, tmp_path: Path
) -> None:
    trained.lora["model.layers.0.self_attn.q_proj.lora_A.weight"] = torch.ones(RANK, 99)
    trained.lora["model.layers.1.mlp.down_proj.lora_B.weight"] = torch.ones(77, RANK)
    message = refused(trained, shapes, tmp_path / "source")
    assert "layers.0.self_attn.q_proj has A (8, 99) and B (128, 8)" in message
    assert (
        "layers.1.mlp.down_proj has A (8, 256) and B (77, 8) of rank 8 for a weight of (128, 256)" in message
    )


def test_modules_and_shapes_that_are_wrong_are_named_together(
    trained: Trained, shapes: Shapes, tmp_path: Path
) -> None:
    trained.lora["model.layers.0.self_attn.q_proj.lora_A.weight"] = torch.ones(RANK, 99)
    trained.lora["model.layers.9.self_attn.q_proj.lora_A.weight"] = torch.ones(RANK, 128)
    trained.lora["model.layers.9.self_attn.q_proj.lora_B.weight"] = torch.ones(128, RANK)
    message = refused(trained, shapes, tmp_path / "source")
    assert "layers.0.self_attn.q_proj has A (8, 99)" in message
    assert "the model has no language_model.model.layers.9.self_attn.q_proj" in message


def test_unknown_keys_wrong_shapes_and_a_wrong_projector_are_told_together(
    trained: Trained, shapes: Shapes, tmp_path: Path
) -> None:
    trained.lora["model.layers.0.self_attn.q_proj.lora_magnitude_vector"] = torch.ones(128)
    trained.lora["model.layers.0.self_attn.q_proj.lora_A.weight"] = torch.ones(RANK, 99)
    del trained.projector["mm_projector.2.bias"]
    message = refused(trained, shapes, tmp_path / "source")
    assert "layers.0.self_attn.q_proj.lora_magnitude_vector" in message
    assert "layers.0.self_attn.q_proj has A (8, 99)" in message
    assert "missing: model.mm_projector.2.bias" in message


def test_every_half_pair_is_named(trained: Trained, shapes: Shapes, tmp_path: Path) -> None:
    del trained.lora["model.layers.0.self_attn.q_proj.lora_B.weight"]
    del trained.lora["model.layers.1.mlp.down_proj.lora_A.weight"]
    message = refused(trained, shapes, tmp_path / "source")
    assert "layers.0.self_attn.q_proj" in message
    assert "layers.1.mlp.down_proj" in message


def test_a_module_that_the_settings_name_and_the_weights_lack_is_named(
    trained: Trained, shapes: Shapes, tmp_path: Path
) -> None:
    trained.lora = {name: tensor for name, tensor in trained.lora.items() if "1.self_attn.v" not in name}
    assert "language_model.model.layers.1.self_attn.v_proj" in refused(trained, shapes, tmp_path / "source")


def test_a_tensor_under_two_names_is_refused(trained: Trained, shapes: Shapes, tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.lora_A.weight"
    trained.lora[name.replace("lora_A.", "lora_A.default.")] = trained.lora[name]
    assert "q_proj.lora_A.weight twice" in refused(trained, shapes, tmp_path / "source")


def test_an_adapter_without_its_projector_is_refused(
    trained: Trained, shapes: Shapes, tmp_path: Path
) -> None:
    trained.projector = {}
    assert "non_lora_trainables.bin is missing" in refused(trained, shapes, tmp_path / "source")


def test_a_converted_adapter_needs_no_projector(trained: Trained, shapes: Shapes, tmp_path: Path) -> None:
    AdapterSource(trained.write(tmp_path / "source"), shapes).write(tmp_path / "written")
    assert AdapterSource(tmp_path / "written", shapes).projector == {}


def test_what_is_missing_of_a_projector_and_what_else_was_trained_is_named(
    trained: Trained, shapes: Shapes, tmp_path: Path
) -> None:
    del trained.projector["mm_projector.2.bias"]
    trained.projector["embed_tokens.weight"] = torch.ones(4, 4)
    trained.projector["mm_projector.4.weight"] = torch.ones(4, 4)
    message = refused(trained, shapes, tmp_path / "source")
    assert "missing: model.mm_projector.2.bias (128,)" in message
    assert "unknown: model.embed_tokens.weight (4, 4)" in message
    assert "unknown: model.mm_projector.4.weight (4, 4)" in message


def test_a_projector_of_another_size_is_refused_by_name(
    trained: Trained, shapes: Shapes, tmp_path: Path
) -> None:
    trained.projector["mm_projector.2.weight"] = torch.ones(99, 128)
    message = refused(trained, shapes, tmp_path / "source")
    assert "non_lora_trainables.bin" in message
    assert "mm_projector.2.weight (99, 128), expected (128, 128)" in message


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapter_config.json", b"{"),
        ("adapter_model.bin", b"PK\x03\x04 cut off"),
        ("non_lora_trainables.bin", b"PK\x03\x04 cut off"),
    ],
)
def test_a_damaged_file_is_named(
    file: str, content: bytes, trained: Trained, shapes: Shapes, tmp_path: Path
) -> None:
    folder = trained.write(tmp_path / "source")
    (folder / file).write_bytes(content)
    with pytest.raises(BundleError, match=file):
        AdapterSource(folder, shapes)


def test_a_folder_without_weights_is_refused(trained: Trained, shapes: Shapes, tmp_path: Path) -> None:
    (trained.write(tmp_path / "source") / "adapter_model.bin").unlink()
    with pytest.raises(AdapterError, match=r"neither adapter_model\.safetensors nor adapter_model\.bin"):
        AdapterSource(tmp_path / "source", shapes)


@pytest.mark.asyncio(loop_scope="session")
async def test_vllm_applies_the_converted_adapter(
    trained: Trained, demo_mllm: DemoModel, shapes: Shapes, tmp_path: Path
) -> None:
    source = AdapterSource(trained.write(tmp_path / "source"), shapes)
    source.write(tmp_path / "adapter")
    write_base(demo_mllm, source, tmp_path / "mllm")
    engine = await VllmEngine.start(
        tmp_path / "mllm", tmp_path / "adapter", EngineSettings(adapter="live", dtype="float32")
    )

    async def answers() -> list[tuple[int, ...]]:
        prompts = [conversation(wording(question)) for question in Question]
        crops = [drawn_crop(seed) for seed in range(2)]
        generations = await asyncio.gather(
            *(engine.generate(prompt, crop, digest(crop), 32) for crop in crops for prompt in prompts)
        )
        return [generation.token_ids for generation in generations]

    try:
        adapted = await answers()
        engine._lora = None
        plain = await answers()
    finally:
        await engine.close()
    assert all(one != other for one, other in zip(adapted, plain, strict=True))
