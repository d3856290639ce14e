"""The demo model built as LLaVA-1.5 is: a Llama text model (Vicuna) instead of Mistral's."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import load_file, save_file

from tests.fixtures.engine import DemoModel


def as_llava_1_5(model: DemoModel, folder: Path) -> DemoModel:
    """`model` in another build with the same answers: each head has a copy of its keys and values."""
    vicuna = DemoModel(folder / "mllm", folder / "adapter")
    shutil.copytree(model.mllm, vicuna.mllm)
    shutil.copytree(model.adapter, vicuna.adapter)
    config = json.loads((model.mllm / "config.json").read_text())
    text = config["text_config"]
    heads, shared, size = text["num_attention_heads"], text["num_key_value_heads"], text["head_dim"]
    del text["sliding_window"]
    text |= {"model_type": "llama", "num_key_value_heads": heads}
    (vicuna.mllm / "config.json").write_text(json.dumps(config))
    for file in (vicuna.mllm / "model.safetensors", vicuna.adapter / "adapter_model.safetensors"):
        weights = load_file(file)
        for name in keys_and_values(weights):
            of_heads = weights[name].unflatten(0, (shared, size))
            weights[name] = of_heads.repeat_interleave(heads // shared, dim=0).flatten(0, 1)
        save_file(weights, file, metadata={"format": "pt"})
    return vicuna


def keys_and_values(weights: Iterable[str]) -> list[str]:
    """Those tensors of the language model whose rows are keys or values."""
    return [
        name
        for name in weights
        if "language_model" in name
        and ("k_proj" in name or "v_proj" in name)
        and not name.endswith("lora_A.weight")
    ]
