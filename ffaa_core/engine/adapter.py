"""A PEFT LoRA adapter: what it holds, what it changes in a checkpoint, and the checkpoint merged with it."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ffaa_core.engine.checkpoint import published_name, tensors
from ffaa_core.errors import AdapterError
from ffaa_core.fold import fold

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]

_PEFT_PREFIX = "base_model.model."
_LANGUAGE_MODEL = "language_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_UNSUPPORTED = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "fan_in_fan_out",
    "use_qalora",
    "use_bdlora",
    "layer_replication",
    "alora_invocation_tokens",
)


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA adapter as PEFT saves it: for each module W of the language model, W + scale * B @ A.

    `factors` maps the module's published name, such as `language_model.model.layers.0.self_attn.q_proj`, to
    A (rank, inputs) and B (outputs, rank).
    """

    path: Path
    rank: int
    scale: float
    factors: dict[str, tuple["torch.Tensor", "torch.Tensor"]]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `adapter_config.json` and `adapter_model.safetensors`.

        Raises:
            AdapterError: a file is missing, the adapter is of a kind that is not supported, or a key is not
                that of a LoRA matrix of the language model.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            config = json.loads((path / "adapter_config.json").read_text())
            weights = load_file(path / "adapter_model.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise AdapterError(f"cannot read the adapter in {path}: {error}") from error
        return cls.of(path, config, weights)

    @classmethod
    def of(cls, path: Path, config: Mapping[str, Any], weights: Mapping[str, "torch.Tensor"]) -> Self:
        """The adapter with these settings and tensors, which `path` calls by name in errors.

        Raises:
            AdapterError: as `read`.
        """
        _check_config(path, config)
        rank = int(config["r"])
        divisor = math.sqrt(rank) if config.get("use_rslora") else rank
        return cls(path=path, rank=rank, scale=config["lora_alpha"] / divisor, factors=_pair(path, weights))

    def check_fits(self, shapes: Mapping[str, Shape]) -> None:
        """Prove that every tensor of the adapter changes a tensor of a checkpoint.

        Args:
            shapes: the checkpoint's published tensor names and their shapes.

        Raises:
            AdapterError: naming every module that is not in the checkpoint, has another shape, or is not
                changed at all.
        """
        if problems := [problem for module in self.factors if (problem := self._misfit(module, shapes))]:
            raise AdapterError(f"the adapter in {self.path} does not fit the model: {_all(problems)}")

    def _misfit(self, module: str, shapes: Mapping[str, Shape]) -> str | None:
        a, b = self.factors[module]
        weight = shapes.get(f"{module}.weight")
        if weight is None:
            return f"the model has no {module}"
        if a.shape != (self.rank, *weight[1:]) or b.shape != (*weight[:1], self.rank):
            return (
                f"{module} has A {tuple(a.shape)} and B {tuple(b.shape)} of rank {self.rank} "
                f"for a weight of {tuple(weight)}"
            )
        return None if a.any() and b.any() else f"{module} is zero, it was never trained"

    def merged(self, mllm: Path) -> Iterator[tuple[str, "torch.Tensor"]]:
        """Every tensor of the checkpoint `mllm` with the adapter added, one at a time, in its dtype there."""
        for name, tensor in tensors(mllm):
            yield name, self.merge(name, tensor)

    def merge(self, name: str, tensor: "torch.Tensor") -> "torch.Tensor":
        """The tensor of that published name with the adapter added, in its dtype; others as they are."""
        factors = self.factors.get(name.removesuffix(".weight"))
        if factors is None:
            return tensor
        a, b = (factor.float() for factor in factors)
        return (tensor.float() + self.scale * (b @ a)).to(tensor.dtype)


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise AdapterError(
            f"the adapter in {path} is of type {config.get('peft_type')}: only LORA is supported"
        )
    used = [name for name in _UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        used.append("bias")
    if used:
        raise AdapterError(
            f"the adapter in {path} uses {', '.join(used)}: merge it into the model's weights first"
        )
    if unsaid := [name for name in ("r", "lora_alpha") if not isinstance(config.get(name), int | float)]:
        raise AdapterError(f"the settings of the adapter in {path} do not say {' and '.join(unsaid)}")
    if config["r"] < 1:
        raise AdapterError(f"the adapter in {path} is of rank {config['r']}: it changes nothing")


def check_keys(path: Path, keys: Iterable[str]) -> None:
    """Prove that `keys` are those of LoRA matrices of the language model.

    Raises:
        AdapterError: naming every other one.
    """
    if strange := [key for key in keys if not is_of_language_model(key)]:
        raise AdapterError(
            f"the adapter in {path} has keys that would be ignored: {_all(strange)}. Expected are names "
            f"like {_PEFT_PREFIX}model.language_model.layers.0.self_attn.q_proj{_A}, and nothing else. "
            "docs/bundle.md says what an adapter is made of"
        )


def is_of_language_model(key: str) -> bool:
    """Whether it is the key of a LoRA matrix of the language model."""
    module = published_name(key.removeprefix(_PEFT_PREFIX))
    return key.startswith(_PEFT_PREFIX) and module.startswith(_LANGUAGE_MODEL) and key.endswith((_A, _B))


def _pair(
    path: Path, weights: Mapping[str, "torch.Tensor"]
) -> dict[str, tuple["torch.Tensor", "torch.Tensor"]]:
    """Both matrices of each module, by its published name."""
    check_keys(path, weights)
    if not weights:
        raise AdapterError(f"the adapter in {path} has no matrices of the language model")
    modules = {key.removesuffix(_A).removesuffix(_B) for key in weights}
    alone = [module for module in modules if module + _A not in weights or module + _B not in weights]
    if alone:
        raise AdapterError(f"the adapter in {path} lacks lora_A or lora_B of {_all(alone)}")
    return {
        published_name(module.removeprefix(_PEFT_PREFIX)): (weights[module + _A], weights[module + _B])
        for module in sorted(modules)
    }


def _all(lines: list[str]) -> str:
    return ", ".join(fold(sorted(lines)))
