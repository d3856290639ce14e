"""Models of the published sizes with random weights: they cost what the published ones cost, and say nothing.

Sources of the sizes: LLaVA-v1.6-Mistral-7B, CLIP ViT-L/14-336, T5-base; an adapter of rank 32 on every linear
layer of the language model.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlavaConfig, LlavaForConditionalGeneration, T5Config, T5EncoderModel

from ffaa_core.bundle.demo_mids import write_demo_mids
from ffaa_core.bundle.demo_mllm import LORA_RANK, LORA_TARGETS, write_demo_mllm
from ffaa_core.engine.checkpoint import published_name
from ffaa_core.mids import Judge, MidsNetwork
from ffaa_core.mids.loading import build_vision
from ffaa_core.settings import CROP_SIZE

TEXT: dict[str, Any] = {
    "vocab_size": 32064,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
VISION: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "projection_dim": 768,
}
MIDS_VISION: dict[str, Any] = {
    "embed_dim": 768,
    "quick_gelu": True,
    "vision_cfg": {"image_size": CROP_SIZE, "patch_size": 14, "layers": 24, "width": 1024},
    "text_cfg": {"context_length": 8, "vocab_size": 8, "width": 32, "heads": 1, "layers": 1},
}
T5_BASE: dict[str, Any] = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}

_SHARD_BYTES = 2 << 30


def write_published_mllm(mllm: Path, adapter: Path, layers: int, device: str) -> None:
    """Write a multimodal LLM in bfloat16 whose answers never end by themselves, and its adapter.

    The tokenizer is the demo bundle's: of the published vocabulary only its ordinary tokens are ever said.

    Args:
        mllm: a new folder, of 15 GB with all 32 `layers`.
        adapter: a new folder, of 170 MB.
        layers: of the language model.
        device: where the weights are drawn.
    """
    write_demo_mllm(mllm, adapter)
    config = LlavaConfig.from_pretrained(mllm)
    config.text_config.update(TEXT | {"num_hidden_layers": layers})
    config.vision_config.update(VISION)
    config.dtype = "bfloat16"
    config.save_pretrained(mllm)
    vocabulary = AutoTokenizer.from_pretrained(mllm).get_vocab()
    spoken = [number for token, number in vocabulary.items() if not token.startswith("<")]
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in LlavaForConditionalGeneration(config).named_parameters()}
    (mllm / "model.safetensors").unlink()
    torch.manual_seed(0)
    shard: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        weight = _random(name, shape, device)
        if name.endswith("lm_head.weight"):
            silent = torch.ones(len(weight), dtype=torch.bool)
            silent[spoken] = False
            weight[silent.to(device)] = 0
        shard[published_name(name)] = weight.cpu()
        if sum(map(_bytes, shard.values())) > _SHARD_BYTES:
            save_file(shard, mllm / f"model-{len(list(mllm.glob('model*'))):05}.safetensors")
            shard = {}
    save_file(shard, mllm / f"model-{len(list(mllm.glob('model*'))):05}.safetensors")
    save_file(dict(_adapter(shapes, device)), adapter / "adapter_model.safetensors")


def _random(name: str, shape: torch.Size, device: str) -> torch.Tensor:
    """Gaussian matrices that keep activations near unit scale; norms are ones, biases zeros."""
    if name.endswith("bias"):
        return torch.zeros(shape, dtype=torch.bfloat16, device=device)
    if "norm" in name:
        return torch.ones(shape, dtype=torch.bfloat16, device=device)
    fan_in = 1 if "embed" in name and len(shape) < 3 else math.prod(shape[1:])
    return torch.randn(shape, dtype=torch.bfloat16, device=device) / math.sqrt(fan_in)


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _adapter(shapes: dict[str, torch.Size], device: str) -> Iterator[tuple[str, torch.Tensor]]:
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if "language_model" in module and module.endswith(LORA_TARGETS):
            rows, columns = shape
            a = torch.randn((LORA_RANK, columns), dtype=torch.bfloat16, device=device) / math.sqrt(columns)
            b = torch.randn((rows, LORA_RANK), dtype=torch.bfloat16, device=device) / math.sqrt(LORA_RANK)
            yield f"base_model.model.{module}.lora_A.weight", a.cpu()
            yield f"base_model.model.{module}.lora_B.weight", b.cpu() / 2


def published_judge(device: str, batch_size: int) -> Judge:
    """A MIDS in float32; the tokenizer is the demo bundle's."""
    with TemporaryDirectory() as folder:
        write_demo_mids(*(Path(folder) / part for part in ("mids", "vision", "text")))
        tokenizer = AutoTokenizer.from_pretrained(Path(folder) / "text")
    torch.backends.mha.set_fastpath_enabled(False)  # as where a bundle's MIDS is loaded
    torch.manual_seed(0)
    with torch.device(device):
        network = MidsNetwork(build_vision(MIDS_VISION), T5EncoderModel(T5Config(**T5_BASE)))
    return Judge(network.eval(), tokenizer, batch_size=batch_size)
