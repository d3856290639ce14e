"""Tensor names and shapes of a LLaVA checkpoint on disk, read without loading it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ffaa_core.errors import BundleError
from ffaa_core.settings import EngineSettings

if TYPE_CHECKING:
    import torch

PUBLISHED_PREFIXES = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.vision_tower.vision_model.", "vision_tower.vision_model."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)
"""How names in Transformers' modules begin, to how those in published checkpoints do; the first fit holds."""


def published_name(name: str) -> str:
    """The published checkpoint's name of a tensor or module that Transformers calls `name`.

    Names that are published ones already come back as they are.
    """
    for ours, published in PUBLISHED_PREFIXES:
        if name.startswith(ours):
            return published + name.removeprefix(ours)
    return name


def weight_files(mllm: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in the order of their names.

    Raises:
        BundleError: there are none.
    """
    files = sorted(mllm.glob("model*.safetensors"))
    if not files:
        raise BundleError(f"{mllm} holds no model*.safetensors: it is not a Transformers checkpoint")
    return files


def tensor_shapes(mllm: Path) -> dict[str, tuple[int, ...]]:
    """Published name and shape of every tensor, from the files' headers alone."""
    from safetensors import safe_open

    shapes = {}
    for path in weight_files(mllm):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                shapes[published_name(name)] = tuple(file.get_slice(name).get_shape())
    return shapes


def tensors(mllm: Path) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Published name and value of every tensor, one at a time."""
    from safetensors import safe_open

    for path in weight_files(mllm):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                yield published_name(name), file.get_tensor(name)


def checkpoint_dtype(mllm: Path) -> str:
    """The dtype the checkpoint's `config.json` names, such as `bfloat16`.

    Raises:
        BundleError: there is no readable `config.json`.
    """
    try:
        config = json.loads((mllm / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {mllm / 'config.json'}: {error}") from error
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def serving_dtype(mllm: Path, settings: EngineSettings, *, on_cpu: bool) -> str:
    """The dtype the checkpoint is computed in: the one asked for, else its own.

    On a CPU float16 becomes float32 unless asked for: few CPUs compute in it, and bfloat16 would round the
    weights.

    Raises:
        BundleError: there is no readable `config.json`.
    """
    if settings.dtype != "auto":
        return settings.dtype
    dtype = checkpoint_dtype(mllm)
    return "float32" if on_cpu and dtype == "float16" else dtype
