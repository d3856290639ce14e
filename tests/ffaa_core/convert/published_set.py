"""Everything that a team downloads, small: a LLaVA in its original layout, mids.pth, CLIP and T5."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ffaa_core.convert.sources import Source
from tests.ffaa_core.convert import published_files as files
from tests.ffaa_core.convert import published_llava as llava

SIZES = files.Sizes()


@dataclass(frozen=True)
class Published:
    """The folders and the file, and the LLaVA's tensors by the names they have in a bundle."""

    mllm: Path
    mids: Path
    vision: Path
    text: Path
    tensors: llava.Tensors

    def sources(self) -> dict[str, Source]:
        return {
            part: Source(name=str(path), path=path)
            for part, path in (
                ("mllm", self.mllm),
                ("mids", self.mids),
                ("vision", self.vision),
                ("text", self.text),
            )
        }


def write_published(root: Path, llama_tokenizer_model: Path) -> Published:
    """Write them as the hub has them: `mids.pth` beside the LLaVA."""
    vocabulary = 1000
    model = llava.random_llava()
    model.resize_token_embeddings(vocabulary)
    config = llava.ORIGINAL_CONFIG | {"vocab_size": vocabulary}
    mllm = llava.write_checkpoint(
        root / "team" / "ffaa", llava.original_tensors(model), config, llava.as_safetensors
    )
    (mllm / "pytorch_model.bin").write_bytes(b"the same weights once more, to be passed over")
    shutil.copy(llama_tokenizer_model, mllm)
    files.write_mids(mllm / "mids.pth", SIZES)
    vision, text = root / "team" / "clip", root / "team" / "t5"
    files.write_clip(vision, SIZES)
    files.write_t5(text, SIZES)
    return Published(mllm, mllm / "mids.pth", vision, text, llava.bundle_tensors(model))


def write_lora(folder: Path, tensors: llava.Tensors) -> llava.Tensors:
    """What LoRA training leaves, of every layer's `q_proj`; returns the trained projector.

    PEFT finds a `q_proj` in the vision tower too; the training never reaches it, and its B stays zero.
    """
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    lora = {
        f"base_model.model.model.{name}": tensor for name, tensor in untrained_lora(["q_proj"], 4).items()
    }
    for layer in range(llava.TEXT["num_hidden_layers"]):
        module = f"model.layers.{layer}.self_attn.q_proj"
        outputs, inputs = tensors[f"language_model.{module}.weight"].shape
        lora[f"base_model.model.{module}.lora_A.weight"] = torch.randn(4, inputs)
        lora[f"base_model.model.{module}.lora_B.weight"] = torch.randn(outputs, 4)
    torch.save(lora, folder / "adapter_model.bin")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    projector = {
        f"base_model.model.model.mm_projector.{layer}.{kind}": torch.randn_like(
            tensors[f"multi_modal_projector.linear_{number}.{kind}"]
        )
        for layer, number in ((0, 1), (2, 2))
        for kind in ("weight", "bias")
    }
    torch.save(projector, folder / "non_lora_trainables.bin")
    return projector


def untrained_lora(targets: Iterable[str], rank: int) -> llava.Tensors:
    """What PEFT puts beside the modules of the vision tower, by the original LLaVA's names of them."""
    layers, width = llava.VISION["num_hidden_layers"], llava.VISION["hidden_size"]
    blocks = [f"vision_tower.vision_tower.vision_model.encoder.layers.{layer}" for layer in range(layers)]
    modules = [f"{block}.self_attn.{target}" for block in blocks for target in targets]
    return {
        **{f"{module}.lora_A.weight": torch.randn(rank, width) for module in modules},
        **{f"{module}.lora_B.weight": torch.zeros(width, rank) for module in modules},
    }
