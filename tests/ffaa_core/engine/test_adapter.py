"""Which adapters are accepted, and what merging one does to the weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ffaa_core.engine.adapter import Adapter
from ffaa_core.engine.checkpoint import published_name, tensor_shapes
from ffaa_core.errors import AdapterError
from tests.fixtures.engine import DemoModel

Weights = dict[str, torch.Tensor]
FIRST = "base_model.model.model.language_model.layers.0.self_attn.q_proj"


@pytest.fixture
def change(demo_mllm: DemoModel, tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the demo adapter with other weights or another configuration."""

    def make(weights: Callable[[Weights], Weights] = lambda w: w, **config: object) -> Path:
        folder = Path(shutil.copytree(demo_mllm.adapter, tmp_path / "adapter"))
        save_file(
            weights(load_file(folder / "adapter_model.safetensors")), folder / "adapter_model.safetensors"
        )
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
        return folder

    return make


def check(mllm: Path, adapter: Path) -> None:
    Adapter.read(adapter).check_fits(tensor_shapes(mllm))


def test_the_demo_adapter_fits_its_model(demo_mllm: DemoModel) -> None:
    check(demo_mllm.mllm, demo_mllm.adapter)
    assert len(Adapter.read(demo_mllm.adapter).factors) == 14


def test_the_original_llavas_key_names_are_refused_by_name(
    demo_mllm: DemoModel, change: Callable[..., Path]
) -> None:
    adapter = change(lambda w: {k.replace("model.language_model.", "model."): t for k, t in w.items()})
    with pytest.raises(
        AdapterError, match=r"ignored: base_model\.model\.model\.layers\.\{0\.\.1\}\.mlp"
    ) as refused:
        check(demo_mllm.mllm, adapter)
    assert refused.value.exit_code == 2


def test_projector_weights_in_an_adapter_are_refused(
    demo_mllm: DemoModel, change: Callable[..., Path]
) -> None:
    key = "base_model.model.model.multi_modal_projector.linear_1.lora_A.weight"
    with pytest.raises(AdapterError, match="multi_modal_projector"):
        check(demo_mllm.mllm, change(lambda w: w | {key: torch.ones(32, 64)}))


def test_a_module_the_model_lacks_is_refused(demo_mllm: DemoModel, change: Callable[..., Path]) -> None:
    adapter = change(lambda w: {k.replace("layers.1.", "layers.7."): t for k, t in w.items()})
    with pytest.raises(AdapterError, match=r"the model has no language_model\.model\.layers\.7\."):
        check(demo_mllm.mllm, adapter)


def test_a_half_pair_is_refused(demo_mllm: DemoModel, change: Callable[..., Path]) -> None:
    adapter = change(lambda w: {k: t for k, t in w.items() if k != f"{FIRST}.lora_B.weight"})
    with pytest.raises(AdapterError, match="lacks lora_A or lora_B"):
        check(demo_mllm.mllm, adapter)


def test_a_wrong_shape_is_refused(demo_mllm: DemoModel, change: Callable[..., Path]) -> None:
    adapter = change(lambda w: w | {f"{FIRST}.lora_A.weight": torch.ones(32, 99)})
    with pytest.raises(AdapterError, match="does not fit"):
        check(demo_mllm.mllm, adapter)


def test_an_untrained_adapter_is_refused(demo_mllm: DemoModel, change: Callable[..., Path]) -> None:
    adapter = change(lambda w: {k: t * 0 if "lora_B" in k else t for k, t in w.items()})
    with pytest.raises(AdapterError, match="never trained"):
        check(demo_mllm.mllm, adapter)


@pytest.mark.parametrize(
    "config",
    [{"peft_type": "IA3"}, {"use_dora": True}, {"bias": "all"}, {"rank_pattern": {"q_proj": 8}}],
    ids=lambda config: next(iter(config)),
)
def test_what_merging_would_get_wrong_is_refused(
    config: dict[str, object], change: Callable[..., Path]
) -> None:
    with pytest.raises(AdapterError):
        Adapter.read(change(**config))


def test_a_truncated_file_is_refused(change: Callable[..., Path]) -> None:
    folder = change()
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(AdapterError, match="cannot read the adapter"):
        Adapter.read(folder)


def test_settings_without_a_rank_are_refused(change: Callable[..., Path]) -> None:
    with pytest.raises(AdapterError, match="do not say r and lora_alpha"):
        Adapter.read(change(r=None, lora_alpha=None))


def test_a_rank_of_zero_is_refused(change: Callable[..., Path]) -> None:
    with pytest.raises(AdapterError, match="of rank 0"):
        Adapter.read(change(r=0))


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="cannot read the adapter"):
        Adapter.read(tmp_path)


@pytest.mark.parametrize("use_rslora", [False, True])
def test_merged_weights_are_those_that_peft_merges(
    use_rslora: bool, demo_mllm: DemoModel, change: Callable[..., Path]
) -> None:
    from peft import PeftModel
    from transformers import LlavaForConditionalGeneration

    adapter = change(use_rslora=use_rslora)
    model = LlavaForConditionalGeneration.from_pretrained(demo_mllm.mllm)
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    theirs = {published_name(name): tensor for name, tensor in merged.state_dict().items()}
    ours = dict(Adapter.read(adapter).merged(demo_mllm.mllm))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], msg=name)
