"""A published LoRA adapter, under the key names that vLLM applies, and the projector trained with it.

LLaVA's training leaves `adapter_model.*` and `adapter_config.json` by PEFT, with the names that its own model
gives to modules, and beside them `non_lora_trainables.bin` with the whole projector.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ffaa_core.convert.json_file import AGAIN, read_json
from ffaa_core.convert.llava_names import ORIGINAL, PROJECTOR
from ffaa_core.convert.weights import Shape, Weights, check
from ffaa_core.engine.adapter import Adapter, check_keys, is_of_language_model
from ffaa_core.errors import AdapterError, BundleError
from ffaa_core.fold import fold

_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_TRAINED_WITH_IT = "non_lora_trainables.bin"

_ORIGINAL = "base_model.model.model.layers."
_OLDER = "base_model.model.language_model.model.layers."
_OURS = "base_model.model.model.language_model.layers."
_PUBLISHED = "language_model.model.layers."
_TOWER = ".vision_tower."
_NARROWS = ("layers_to_transform", "exclude_modules")
_LORA = re.compile(r"\.lora_[AB]\.weight$")
_NAMED_ADAPTER = re.compile(r"(?<=\.lora_[AB])\.default(?=\.weight$)")


class AdapterSource:
    """An adapter that fits a base model: for the bundle's `adapter/`, or to be merged into the base.

    `adapter` has its matrices; `adapter.merge` is what adds them to a tensor of the base. `projector` has the
    tensors that take the place of the base's, by their names in the bundle: none if the adapter has none.
    """

    def __init__(self, folder: Path, base: Mapping[str, Shape]) -> None:
        """Read the adapter, and check it.

        Args:
            folder: with `adapter_config.json`, `adapter_model.safetensors` or `.bin`, and for an adapter with
                the original LLaVA's names `non_lora_trainables.bin`.
            base: names in the bundle and shapes of the base's tensors.

        Raises:
            AdapterError: it is of a kind that is not supported, or it or its projector does not fit: with
                every tensor that is missing, unknown, or of the wrong shape.
            BundleError: a file is missing or damaged.
        """
        self._config = read_json(folder / _CONFIG)
        weights = Weights.open(_weight_file(folder))
        is_original = any(name.startswith(_ORIGINAL) for name in weights.shapes)
        matrices = dict(weights.renamed(_our_key).items())
        of_tower = {key: matrix for key, matrix in matrices.items() if _TOWER in key}
        of_text = {key: matrix for key, matrix in matrices.items() if is_of_language_model(key)}
        problems: list[str] = []
        with _noted(problems):
            _check_untrained(folder, of_tower)
        with _noted(problems):
            check_keys(folder, matrices.keys() - of_tower.keys())
        with _noted(problems):
            self.adapter = Adapter.of(folder, self._config, of_text)
            with _noted(problems):
                self.adapter.check_fits(base)
            _check_complete(self.adapter, self._config, base)
        with _noted(problems):
            self.projector = _read_projector(folder / _TRAINED_WITH_IT, base, is_required=is_original)
        if problems:
            raise AdapterError("\n".join(problems))

    def write(self, directory: Path) -> None:
        """Write `adapter_model.safetensors` and `adapter_config.json`, as PEFT and vLLM read them."""
        from safetensors.torch import save_file

        weights = {}
        for module, (a, b) in self.adapter.factors.items():
            key = _OURS + module.removeprefix(_PUBLISHED)
            for letter, matrix in (("A", a), ("B", b)):
                weights[f"{key}.lora_{letter}.weight"] = matrix.clone(memory_format=torch.contiguous_format)
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


def _weight_file(folder: Path) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise AdapterError(f"{folder} holds no adapter: neither {' nor '.join(_WEIGHTS)} is there")


def _our_key(key: str) -> str:
    """The key under which vLLM and PEFT find the module of an adapter's tensor; unknown ones as they are."""
    key = _NAMED_ADAPTER.sub("", key)
    for prefix in (_ORIGINAL, _OLDER):
        if key.startswith(prefix):
            return _OURS + key.removeprefix(prefix)
    return key


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """Adds what is refused in the block to `problems`, and goes on after it."""
    try:
        yield
    except BundleError as error:
        problems.append(str(error))


def _check_untrained(folder: Path, matrices: Mapping[str, torch.Tensor]) -> None:
    """The vision tower's matrices change nothing: PEFT makes them, LLaVA's training passes them over.

    It finds the names of the language model's layers in the tower too. The tower computes no gradients, and
    B, which begins as zero, stays so.
    """
    modules = {key: _LORA.sub("", key) for key in matrices}
    zero = {modules[key] for key, matrix in matrices.items() if ".lora_B." in key and not matrix.any()}
    if trained := set(modules.values()) - zero:
        raise AdapterError(
            f"the adapter in {folder} changes the vision tower, which only the code it was trained with "
            f"applies: {', '.join(fold(sorted(trained)))}. Merge it into the checkpoint with that code, and "
            "give the merged one"
        )


def _check_complete(adapter: Adapter, config: Mapping[str, Any], base: Mapping[str, Shape]) -> None:
    """An adapter that lists what it changes, by the ends of modules' names, has matrices for all of it."""
    targets = config.get("target_modules")
    if not isinstance(targets, list) or any(config.get(name) for name in _NARROWS):
        return
    modules = [name.removesuffix(".weight") for name in base if name.startswith(_PUBLISHED)]
    stated = [name for name in modules if any(name.endswith(f".{target}") for target in targets)]
    if missing := [name for name in stated if name not in adapter.factors]:
        raise AdapterError(
            f"the adapter in {adapter.path} lacks matrices of modules that its {_CONFIG} says it changes: "
            f"{', '.join(fold(missing))}. {AGAIN}"
        )


def _read_projector(path: Path, base: Mapping[str, Shape], is_required: bool) -> dict[str, torch.Tensor]:
    """The whole projector in `path`, which must hold nothing else."""
    if not path.exists():
        if is_required:
            raise AdapterError(
                f"{path} is missing: it holds the projector that was trained with the adapter, without which "
                "the answers are not the published ones. Copy it there"
            )
        return {}
    projector = Weights.open(path).renamed(_bundle_name)
    found = {ORIGINAL.own_name(name): shape for name, shape in projector.shapes.items()}
    expected = {ORIGINAL.own_name(name): shape for name, shape in base.items() if name.startswith(PROJECTOR)}
    check(found, expected, f"{path}, which is to hold the projector alone,")
    return dict(projector.items())


def _bundle_name(name: str) -> str | None:
    """The name in the bundle of what the original LLaVA calls so, with or without the names around it."""
    return ORIGINAL.bundle_name("model." + name.removeprefix("base_model.model.").removeprefix("model."))


def _targets(adapter: Adapter) -> str:
    """The changed modules as a regular expression: PEFT would find mere names in the vision tower, too."""
    names = sorted({re.escape(module.rpartition(".")[2]) for module in adapter.factors})
    return rf".*language_model.*\.({'|'.join(names)})"
