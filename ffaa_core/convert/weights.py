"""Weights as others publish them: names and shapes at once, values one at a time; checked, and written.

Nothing here holds more than it must: `Weights` keeps names, shapes and dtypes, and reading maps one file at a
time into memory.
"""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from ffaa_core.convert.weight_files import find_files, open_file
from ffaa_core.errors import BundleError
from ffaa_core.fold import fold

Shape = tuple[int, ...]

SHARD_BYTES = 500_000_000
"""Of a written shard: so small that one in memory never counts beside the shards that are published."""


class _Place(NamedTuple):
    """Where a tensor is: its file, its name there, and a tensor of its shape and dtype without values."""

    file: Path
    key: str
    meta: torch.Tensor


class Weights:
    """Tensors in files, by name. `source` is the file or folder they were opened by, for messages."""

    def __init__(self, source: Path, places: Mapping[str, _Place]) -> None:
        self.source = source
        self._places = dict(places)

    @classmethod
    def open(cls, source: Path) -> Self:
        """Open a file (`.safetensors`, `.bin`, `.pth`, `.pt`) or a folder with such under their usual names.

        Raises:
            BundleError: something is missing, damaged, could run code, is no tensor, or is there twice.
        """
        places: dict[str, _Place] = {}
        twice = []
        files, stated = find_files(source)
        for file in files:
            for name, tensor in open_file(file).items():
                if name in places:
                    twice.append(f"{name} in {places[name].file.name} and {file.name}")
                places[name] = _Place(file, name, tensor.to("meta"))
        if twice:
            raise BundleError(
                f"{source} has tensors in two files: {'; '.join(twice)}. Leave only the files of one "
                "checkpoint there"
            )
        absent = [f"{name} in {file}" for name, file in stated.items() if not _is_in(places, name, file)]
        if absent:
            raise BundleError(
                f"the index of {source} names tensors that are not where it says: {', '.join(fold(absent))}. "
                "Download or copy the files and their index again"
            )
        return cls(source, places)

    @property
    def meta(self) -> Mapping[str, torch.Tensor]:
        """Every tensor on the meta device: its shape and dtype, no values."""
        return {name: place.meta for name, place in self._places.items()}

    @property
    def shapes(self) -> Mapping[str, Shape]:
        return {name: tuple(place.meta.shape) for name, place in self._places.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def read(self, name: str) -> torch.Tensor:
        """One tensor. Its values come from its file when they are used.

        Raises:
            KeyError: there is none of that name.
        """
        place = self._places[name]
        return open_file(place.file)[place.key]

    def items(self, names: Collection[str] | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor of all, or of those in `names`: file by file, each opened once.

        Raises:
            KeyError: there is none of that name.
        """
        by_file: dict[Path, list[str]] = {}
        for name in self._places if names is None else names:
            by_file.setdefault(self._places[name].file, []).append(name)
        for file, its_names in by_file.items():
            tensors = open_file(file)
            for name in its_names:
                yield name, tensors[self._places[name].key]

    def renamed(self, rename: Callable[[str], str | None]) -> "Weights":
        """The same tensors under the names `rename` gives them; those it gives None are left out.

        Raises:
            BundleError: two tensors would have one name.
        """
        places: dict[str, _Place] = {}
        for name, place in self._places.items():
            new = rename(name)
            if new is None:
                continue
            if new in places:
                raise BundleError(f"{self.source} has {new} twice, as {places[new].key} and as {place.key}")
            places[new] = place
        return Weights(self.source, places)


def _is_in(places: Mapping[str, _Place], name: str, file: str) -> bool:
    return name in places and places[name].file.name == file


def check(found: Mapping[str, Shape], expected: Mapping[str, Shape], what: str) -> None:
    """Prove that tensors are those expected, by name and shape.

    Args:
        what: what the message calls them, such as `the T5 encoder in t5-base`.

    Raises:
        BundleError: naming every missing, unknown and mis-shaped tensor, with what was expected. Names that
            differ in a number are told as one, such as `model.layers.{0..31}.mlp.up_proj.weight`.
    """
    missing = [f"{name} {shape}" for name, shape in expected.items() if name not in found]
    unknown = [f"{name} {shape}" for name, shape in found.items() if name not in expected]
    misshaped = [
        f"{name} {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    problems = [
        f"\n  {title}: {line}"
        for title, lines in (("missing", missing), ("unknown", unknown), ("of the wrong shape", misshaped))
        for line in fold(lines)
    ]
    if problems:
        raise BundleError(
            f"{what} has not the weights it should have.{''.join(problems)}\n"
            "Is it the right file, whole, and does its configuration belong to it?"
        )


def write_weights(
    folder: Path,
    layout: Mapping[str, torch.Tensor],
    read: Callable[[Collection[str]], Iterable[tuple[str, torch.Tensor]]],
    shard_bytes: int | None = SHARD_BYTES,
    stem: str = "model",
) -> None:
    """Write `<stem>.safetensors`, or shards of it with their index, holding one shard in memory at a time.

    The files hang on `layout` and the values alone, not on the files the values come from.

    Args:
        layout: what is to be written, in its order: tensors of the right shape and dtype, as `Weights.meta`.
        read: gives the tensors of the names it is asked for, in any order, as `Weights.items`.
        shard_bytes: of each shard; None for a single file.

    Raises:
        BundleError: `read` gives something else than `layout` says.
    """
    split = split_torch_state_dict_into_shards(
        dict(layout),
        filename_pattern=f"{stem}{{suffix}}.safetensors",
        max_shard_size=sys.maxsize if shard_bytes is None else shard_bytes,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for file, names in split.filename_to_tensors.items():
        tensors = dict(_own_memory(read(names)))
        for name in names:
            _check_as_planned(name, tensors.get(name), layout[name])
        save_file(tensors, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / f"{stem}.safetensors.index.json").write_text(
            json.dumps(index, indent=2) + "\n", encoding="utf-8"
        )


def _own_memory(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Copy what shares its memory with another tensor: safetensors refuse it."""
    seen = set()
    for name, tensor in tensors:
        storage = tensor.untyped_storage()
        is_whole = tensor.is_contiguous() and storage.nbytes() == tensor.nbytes
        if not is_whole or storage.data_ptr() in seen:
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        seen.add(tensor.untyped_storage().data_ptr())
        yield name, tensor


def _check_as_planned(name: str, tensor: torch.Tensor | None, planned: torch.Tensor) -> None:
    if tensor is None or tensor.shape != planned.shape or tensor.dtype != planned.dtype:
        found = "nothing" if tensor is None else f"{tuple(tensor.shape)} of {tensor.dtype}"
        raise BundleError(f"{name} came as {found} and not as {tuple(planned.shape)} of {planned.dtype}")
