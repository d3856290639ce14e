"""Small LLaVA checkpoints with random weights, written in the layouts others publish them in.

The original layout's names are those that LLaVA's own code gives its modules; nothing of ours is asked.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
)

Tensors = dict[str, torch.Tensor]

VOCABULARY = 320
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 128,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 336,
    "patch_size": 14,
}
ORIGINAL_CONFIG = {
    **TEXT,
    "model_type": "llava_mistral",
    "architectures": ["LlavaMistralForCausalLM"],
    "hidden_act": "silu",
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": False,
    "mm_hidden_size": 128,
    "mm_patch_merge_type": "spatial_unpad",
    "mm_projector_type": "mlp2x_gelu",
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "somewhere/clip-small",
    "image_aspect_ratio": "pad",
    "tune_mm_mlp_adapter": False,
}


class Vocabulary(NamedTuple):
    """A tokenizer as far as weights go."""

    image_token_id: int = VOCABULARY
    vocab_size: int = VOCABULARY + 1


def random_llava(kind: str = "mistral", dtype: torch.dtype = torch.float32) -> LlavaForConditionalGeneration:
    """Without a token for the image, as the published one. Biases and norms are random too."""
    text = MistralConfig(**TEXT, sliding_window=None) if kind == "mistral" else LlamaConfig(**TEXT)
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(text_config=text, vision_config=CLIPVisionConfig(**VISION))
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.1)
    return model.to(dtype).eval()


def original_tensors(model: LlavaForConditionalGeneration) -> Tensors:
    """Under the original LLaVA's names, with what such checkpoints hold besides."""
    inside = model.model
    return {
        **_under("model", inside.language_model),
        **_under("model.vision_tower.vision_tower.vision_model", inside.vision_tower),
        **_under("model.mm_projector.0", inside.multi_modal_projector.linear_1),
        **_under("model.mm_projector.2", inside.multi_modal_projector.linear_2),
        **_under("lm_head", model.lm_head),
        "model.image_newline": torch.ones(TEXT["hidden_size"]),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
    }


def _under(prefix: str, module: torch.nn.Module) -> Tensors:
    return {f"{prefix}.{name}": tensor.detach() for name, tensor in module.named_parameters()}


def bundle_tensors(model: LlavaForConditionalGeneration) -> Tensors:
    """Under the names that Transformers published checkpoints with, which the bundle has."""
    inside = model.model
    return {
        **_under("language_model.model", inside.language_model),
        **_under("vision_tower.vision_model", inside.vision_tower),
        **_under("multi_modal_projector", inside.multi_modal_projector),
        **_under("language_model.lm_head", model.lm_head),
    }


def new_tensors(model: LlavaForConditionalGeneration) -> Tensors:
    """Under the names that Transformers' modules have since."""
    return {name: tensor.detach() for name, tensor in model.named_parameters()}


def write_checkpoint(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    save: Callable[[Path, Tensors], None],
    shard_bytes: int | str = 200_000,
    fill: Callable[[str, torch.Tensor], torch.Tensor] = lambda name, tensor: tensor,
) -> Path:
    """Shards with their index, and config.json. `fill` may make each tensor of one given, shard by shard."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config)))
    pattern = "model{suffix}.safetensors" if save is as_safetensors else "pytorch_model{suffix}.bin"
    split = split_torch_state_dict_into_shards(
        dict(tensors), filename_pattern=pattern, max_shard_size=shard_bytes
    )
    for file, names in split.filename_to_tensors.items():
        save(folder / file, {name: fill(name, tensors[name]) for name in names})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / f"{pattern.format(suffix='')}.index.json").write_text(json.dumps(index))
    return folder


def as_safetensors(file: Path, tensors: Tensors) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def as_pickle(file: Path, tensors: Tensors) -> None:
    torch.save(tensors, file)
