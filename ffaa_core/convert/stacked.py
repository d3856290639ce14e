"""Weights under other names, some of them made of several: what MIDS's parts of a bundle are converted by."""

from collections.abc import Collection, Iterator, Mapping

import torch

from ffaa_core.convert.weights import Shape, Weights

Stacks = Mapping[str, tuple[str, ...]]
"""New name of a tensor to the names of those it is made of, as they are stacked on their first axis."""


def expected_sources(sources: Stacks, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Name and shape of every source tensor, given the `shapes` of what is made of them."""
    expected: dict[str, Shape] = {}
    for name, parts in sources.items():
        rows, *rest = shapes[name]
        expected |= {part: (rows // len(parts), *rest) for part in parts}
    return expected


class Stacked:
    """The tensors that `sources` names, made of those of `weights`: what `write_weights` asks for."""

    def __init__(self, weights: Weights, sources: Stacks) -> None:
        self._weights = weights
        self._sources = sources

    def __contains__(self, name: str) -> bool:
        return name in self._sources

    @property
    def layout(self) -> dict[str, torch.Tensor]:
        """Every tensor without its values."""
        meta = self._weights.meta
        return {name: _stack([meta[part] for part in parts]) for name, parts in self._sources.items()}

    def items(self, names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor of each of `names`."""
        parts = dict(self._weights.items([part for name in names for part in self._sources[name]]))
        for name in names:
            yield name, _stack([parts[part] for part in self._sources[name]])


def _stack(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
