"""Files of weights as others publish them: which of a folder's files hold them, and how one is read.

Read are safetensors (`.safetensors`) and PyTorch's own (`.bin`, `.pth`, `.pt`), without running Python code
in them. Both are mapped into memory, so that a tensor costs memory only once its values are looked at;
TorchScript archives, as OpenAI published CLIP, and files that PyTorch before 1.6 wrote are loaded whole.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from ffaa_core.convert.json_file import AGAIN, read_json
from ffaa_core.errors import BundleError

SAFETENSORS = ".safetensors"
PICKLED = (".bin", ".pth", ".pt")
STEMS = {
    SAFETENSORS: ("model", "adapter_model", "open_clip_model"),
    ".bin": ("pytorch_model", "adapter_model", "open_clip_pytorch_model"),
}
"""The usual names of weights in a folder, the preferred first."""

_OPEN_CLIP, _OPEN_CLIP_CONFIG = "open_clip_", "open_clip_config.json"
_ZIP = b"PK"


class FoundFiles(NamedTuple):
    """Files of weights, and what their index says where they have one: tensor to the name of its file."""

    files: list[Path]
    stated: dict[str, str]


def find_files(source: Path) -> FoundFiles:
    """The files that hold the weights of `source`: itself, or a folder's by their usual names.

    Safetensors are preferred to PyTorch's, one file to shards with an index, an index to shards without. Of
    an open_clip folder it is open_clip's own: a `model.safetensors` there names the tensors as timm does.

    Raises:
        BundleError: there is nothing of that name, no such file in the folder, or not every shard.
    """
    if source.is_file():
        return FoundFiles([source], {})
    if not source.is_dir():
        raise BundleError(f"there is no file or folder {source}: give where the weights lie")
    names = [(stem, suffix) for suffix, stems in STEMS.items() for stem in stems]
    if (source / _OPEN_CLIP_CONFIG).is_file():
        names.sort(key=lambda name: not name[0].startswith(_OPEN_CLIP))
    for stem, suffix in names:
        if found := _usual_files(source, stem, suffix):
            return found
    usual = ", ".join(f"{stem}*{suffix}" for stem, suffix in names)
    raise BundleError(
        f"the folder {source} holds no weights: none of {usual}. Name the file itself, or another folder"
    )


def _usual_files(folder: Path, stem: str, suffix: str) -> FoundFiles | None:
    single, index = folder / f"{stem}{suffix}", folder / f"{stem}{suffix}.index.json"
    if single.is_file():
        return FoundFiles([single], {})
    if index.is_file():
        stated = _read_index(index)
        return FoundFiles(sorted({folder / file for file in stated.values()}), stated)
    shards = sorted(folder.glob(f"{stem}-*-of-*{suffix}"))
    if not shards:
        return None
    _check_complete(shards, suffix)
    return FoundFiles(shards, {})


def _read_index(index: Path) -> dict[str, str]:
    """Tensor to the file it is in, as an index of shards says; all of them are there."""
    try:
        files = read_json(index)["weight_map"]
        missing = sorted({file for file in files.values() if not (index.parent / file).is_file()})
    except (KeyError, AttributeError, TypeError) as error:
        raise BundleError(
            f"{index} is not an index of weights ({type(error).__name__}: {error}). {AGAIN}"
        ) from error
    if missing:
        raise BundleError(
            f"{index} names files that are not there: {', '.join(missing)}. Download or copy them too"
        )
    return dict(files)


def _check_complete(shards: list[Path], suffix: str) -> None:
    """Shards without an index: their own names say how many there must be."""
    numbered = [re.search(rf"-(\d+)-of-(\d+){re.escape(suffix)}$", shard.name) for shard in shards]
    totals = {int(match[2]) for match in numbered if match}
    absent = set(range(1, max(totals, default=0) + 1)) - {int(match[1]) for match in numbered if match}
    if not all(numbered) or len(totals) != 1 or absent:
        problem = (
            f"number {', '.join(map(str, sorted(absent)))} is missing"
            if absent
            else "they do not belong together"
        )
        raise BundleError(
            f"{shards[0].parent} holds the shards {', '.join(shard.name for shard in shards)}: {problem}. "
            "Download or copy all of them"
        )


def open_file(file: Path) -> Mapping[str, torch.Tensor]:
    """Every tensor of a file by its name. Their values are read when they are used.

    Raises:
        BundleError: it cannot be read, is damaged, would run code, or holds something else than tensors.
    """
    if file.suffix == SAFETENSORS:
        return _open_safetensors(file)
    if file.suffix in PICKLED:
        return _open_pickled(file)
    known = ", ".join([SAFETENSORS, *PICKLED])
    raise BundleError(f"{file} is not a file of weights that is known: its name ends in none of {known}")


def _open_safetensors(file: Path) -> Mapping[str, torch.Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{file} is truncated, or not a safetensors file ({error}). {AGAIN}") from error


def _open_pickled(file: Path) -> Mapping[str, torch.Tensor]:
    try:
        with file.open("rb") as stream:
            is_zip = stream.read(len(_ZIP)) == _ZIP
        if is_zip and _is_torchscript(file):
            content = torch.jit.load(str(file), map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
        else:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        if code := re.search(r"(?i)(?:unsupported (?:global|class)|trying to call).*", str(error)):
            raise BundleError(
                f"{file} is a pickle that could run code, and is not read ({code[0].strip()}). Use a "
                "safetensors file, or one that holds tensors alone"
            ) from error
        raise _damaged(file, error) from error
    except Exception as error:  # a damaged pickle raises anything
        raise _damaged(file, error) from error
    return _tensors_of(file, content)


def _is_torchscript(file: Path) -> bool:
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _damaged(file: Path, error: Exception) -> BundleError:
    reason = f"{type(error).__name__}: {error}".splitlines()[0].split(". ")[0]
    return BundleError(f"{file} is truncated, or not a file of PyTorch weights ({reason}). {AGAIN}")


def _tensors_of(file: Path, content: object) -> dict[str, torch.Tensor]:
    """A state dict, or the one under `state_dict` as training programs save it."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise BundleError(f"{file} holds a {type(content).__name__} and not tensors by their names")
    strange = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise BundleError(
            f"{file} holds entries that are not tensors: {', '.join(strange)}. Save the weights alone"
        )
    return {str(name): tensor.detach() for name, tensor in content.items()}
