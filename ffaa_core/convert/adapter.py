"""A published LoRA adapter, under the key names that vLLM applies, and the projector trained with it.

LLaVA's training leaves `adapter_model.*` and `adapter_config.json` by PEFT, with the names that its own model
gives to modules, and beside them `non_lora_trainables.bin` with the whole projector.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ffaa_core.convert.fold import fold
from ffaa_core.convert.weights import Shape, Weights, check
from ffaa_core.engine.adapter import Adapter
from ffaa_core.errors import AdapterError

_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_TRAINED_WITH_IT = "non_lora_trainables.bin"

_ORIGINAL = "base_model.model.model.layers."
_OURS = "base_model.model.model.language_model.layers."
_PUBLISHED = "language_model.model.layers."
_NAMED_ADAPTER = re.compile(r"(?<=\.lora_[AB])\.default(?=\.weight$)")

_PROJECTOR = "multi_modal_projector."
_ORIGINAL_PROJECTOR = re.compile(r"(?:base_model\.model\.)?(?:model\.)?mm_projector\.([02])\.(weight|bias)")
_LINEAR = {"0": "linear_1", "2": "linear_2"}


class AdapterSource:
    """An adapter that fits a base model: for `adapter/`, or to be merged into the base.

    Args:
        folder: with `adapter_config.json`, `adapter_model.safetensors` or `.bin`, and for an adapter with the
            original LLaVA's names `non_lora_trainables.bin`.
        base: the shapes of the base model's tensors by their published names.

    Attributes:
        adapter: its matrices; `adapter.merge(name, tensor)` adds them to a tensor of the base.
        projector: the tensors of the projector that take the place of the base's, by their published names.

    Raises:
        AdapterError: it is of a kind that is not supported, or its tensors do not fit the base.
        BundleError: a file is damaged or missing, or the projector is not the base's.
    """

    def __init__(self, folder: Path, base: Mapping[str, Shape]) -> None:
        self._config = _read_config(folder / _CONFIG)
        weights = Weights.open(_weight_file(folder))
        is_original = any(name.startswith(_ORIGINAL) for name in weights.shapes)
        self.adapter = Adapter.of(folder, self._config, dict(weights.renamed(_our_key).items()))
        self.adapter.check_fits(base)
        _check_complete(self.adapter, self._config.get("target_modules"), base)
        self.projector = _read_projector(folder / _TRAINED_WITH_IT, base, is_required=is_original)

    def write(self, directory: Path) -> None:
        """Write `adapter_model.safetensors` and `adapter_config.json`, as PEFT and vLLM read them."""
        from safetensors.torch import save_file

        weights = {}
        for module, (a, b) in self.adapter.factors.items():
            key = _OURS + module.removeprefix(_PUBLISHED)
            weights[f"{key}.lora_A.weight"], weights[f"{key}.lora_B.weight"] = a.contiguous(), b.contiguous()
        directory.mkdir(parents=True, exist_ok=True)
        save_file(weights, directory / _WEIGHTS[0], metadata={"format": "pt"})
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": "",
            "r": self.adapter.rank,
            "lora_alpha": self._config["lora_alpha"],
            "use_rslora": bool(self._config.get("use_rslora")),
            "lora_dropout": self._config.get("lora_dropout", 0.0),
            "bias": "none",
            "target_modules": _targets(self.adapter),
            "inference_mode": True,
        }
        (directory / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"cannot read the adapter's settings: {path}: {error}") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{path} is not an object of settings")
    return config


def _weight_file(folder: Path) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise AdapterError(f"{folder} holds no adapter: neither {' nor '.join(_WEIGHTS)} is there")


def _our_key(key: str) -> str:
    """The key of an adapter's tensor under which vLLM and PEFT find its module.

    Other names, among them those of this project and of older Transformers, are left for `Adapter` to judge.
    """
    key = _NAMED_ADAPTER.sub("", key)
    return _OURS + key.removeprefix(_ORIGINAL) if key.startswith(_ORIGINAL) else key


def _check_complete(adapter: Adapter, targets: object, base: Mapping[str, Shape]) -> None:
    """An adapter that lists what it changes, by the ends of modules' names, has matrices for all of it."""
    if not isinstance(targets, list):
        return
    modules = [name.removesuffix(".weight") for name in base if name.startswith(_PUBLISHED)]
    stated = [name for name in modules if any(name.endswith(f".{target}") for target in targets)]
    if missing := [name for name in stated if name not in adapter.factors]:
        raise AdapterError(
            f"the adapter in {adapter.path} lacks matrices of modules that its {_CONFIG} says it changes: "
            f"{', '.join(fold(missing))}"
        )


def _read_projector(path: Path, base: Mapping[str, Shape], is_required: bool) -> dict[str, torch.Tensor]:
    if not path.exists():
        if is_required:
            raise AdapterError(
                f"{path} is missing: it holds the projector that was trained with the adapter, without which "
                "the answers are not the published ones. Copy it there"
            )
        return {}
    weights = Weights.open(path).renamed(_published_projector_name)
    expected = {name: shape for name, shape in base.items() if name.startswith(_PROJECTOR)}
    check(weights.shapes, expected, f"the projector in {path}")
    return dict(weights.items())


def _published_projector_name(name: str) -> str:
    """The published name of a projector's tensor; of any other, its own, for the check to refuse."""
    match = _ORIGINAL_PROJECTOR.fullmatch(name)
    return f"{_PROJECTOR}{_LINEAR[match[1]]}.{match[2]}" if match else name


def _targets(adapter: Adapter) -> str:
    """The changed modules as a regular expression: PEFT would find mere names in the vision tower, too."""
    names = sorted({re.escape(module.rpartition(".")[2]) for module in adapter.factors})
    return rf".*language_model.*\.({'|'.join(names)})"
