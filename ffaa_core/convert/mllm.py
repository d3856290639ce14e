"""A published LLaVA checkpoint, original or of Transformers, as the bundle's `mllm/`."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ffaa_core.convert.llava_config import read_config
from ffaa_core.convert.llava_names import EMBEDDING, LM_HEAD, TOWER, layout_of
from ffaa_core.convert.tower import Tower
from ffaa_core.convert.vision import VisionSource
from ffaa_core.convert.weights import SHARD_BYTES, Shape, Weights, check, write_weights
from ffaa_core.engine.checkpoint import published_name
from ffaa_core.errors import BundleError
from ffaa_core.fold import fold

if TYPE_CHECKING:
    from transformers import GenerationConfig, LlavaConfig

Transform = Callable[[str, torch.Tensor], torch.Tensor]
"""A tensor's name in the bundle and its value, to its new value of the same shape and dtype."""

_ROWS_AT_ONCE = 1024


class Vocabulary(Protocol):
    """What of a tokenizer the weights must fit: the id of `<image>`, and one more than its largest id."""

    image_token_id: int
    vocab_size: int


class MllmSource:
    """A LLaVA checkpoint that is whole: every tensor is there, known, and of the shape its config.json says.

    Every tensor keeps the dtype it has in its source.

    Attributes:
        shapes: name in the bundle and shape of every tensor that `write` writes.
    """

    def __init__(self, source: Path, tokenizer: Vocabulary, vision: VisionSource | None = None) -> None:
        """Read names, shapes and configuration, and check them.

        Args:
            source: the checkpoint's folder: `config.json`, and weights in the original LLaVA layout or in
                either of Transformers.
            tokenizer: the embedding and `lm_head` get rows for the tokens they lack.
            vision: the CLIP that becomes the vision tower of a checkpoint without one.

        Raises:
            BundleError: weights or configuration cannot be read, or do not fit one another: with every
                missing, unknown and mis-shaped tensor, by its name in the source.
        """
        given = Weights.open(source)
        self._layout = layout_of(given.shapes)
        self._weights = given.renamed(self._layout.bundle_name)
        self._own_names = {self._layout.bundle_name(name): name for name in given.shapes}
        self._tower = None if self._has_tower() else _needed_tower(vision, source)
        self._config = read_config(
            source / "config.json",
            {name.removeprefix(TOWER): shape for name, shape in self._weights.shapes.items()},
            self._tower.config if self._tower else None,
        )
        self._check(f"{source}, read as {self._layout.title},")
        text = _text(self._config)
        text.vocab_size = max(text.vocab_size, tokenizer.vocab_size)
        self._config.image_token_index = tokenizer.image_token_id
        self._config.dtype = self._weights.meta[EMBEDDING].dtype
        self.shapes: Mapping[str, Shape] = _expected_shapes(self._config)
        self._generation_config = _generation_config(source / "config.json", self._config)

    def write(
        self,
        directory: Path,
        *,
        replace: Mapping[str, torch.Tensor] | None = None,
        transform: Transform | None = None,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """Write weights, `config.json` and `generation_config.json`, with one shard in memory at a time.

        Args:
            replace: tensors by their names in the bundle that take the place of the checkpoint's.
            transform: what is done to every tensor last, such as adding an adapter to it.
        """
        replace = replace or {}
        meta = self._meta() | {name: tensor.to("meta") for name, tensor in replace.items()}
        layout = {
            name: torch.empty(shape, dtype=meta[name].dtype, device="meta")
            for name, shape in self.shapes.items()
        }

        def read(names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
            for name, tensor in self._read(names, replace):
                yield name, transform(name, tensor) if transform else tensor

        write_weights(directory, layout, read, shard_bytes)
        self._config.save_pretrained(directory)
        self._generation_config.save_pretrained(directory)

    def _has_tower(self) -> bool:
        return any(name.startswith(TOWER) for name in self._weights.shapes)

    def _check(self, what: str) -> None:
        try:
            expected = _expected_shapes(self._config)
        except Exception as error:  # whatever a model raises at settings that contradict each other
            raise BundleError(f"{what} has a config.json of which no model can be built: {error}") from error
        if self._tower:
            of_tower = {name: shape for name, shape in expected.items() if name.startswith(TOWER)}
            shapes = {name: tuple(tensor.shape) for name, tensor in self._tower.meta.items()}
            check(shapes, of_tower, f"the CLIP given for the vision tower of {what}")
            expected = {name: shape for name, shape in expected.items() if name not in of_tower}
        check(self._by_own_names(self._weights.shapes), self._by_own_names(expected), what)
        meta = self._weights.meta.items()
        if integers := [
            str(self._own_names[name]) for name, tensor in meta if not tensor.is_floating_point()
        ]:
            raise BundleError(
                f"{what} holds integers in {', '.join(fold(integers))}: it is quantised. Give the weights in "
                "float16, bfloat16 or float32"
            )

    def _by_own_names(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """By the names of the source, in which its owner knows them."""
        return {
            self._own_names.get(name) or self._layout.own_name(name): shape for name, shape in shapes.items()
        }

    def _meta(self) -> dict[str, torch.Tensor]:
        return {**self._weights.meta, **(self._tower.meta if self._tower else {})}

    def _read(
        self, names: Collection[str], replace: Mapping[str, torch.Tensor]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        yield from ((name, replace[name]) for name in names if name in replace)
        read = [name for name in names if name not in replace]
        for name, tensor in self._weights.items([name for name in read if name in self._weights]):
            yield name, self._with_all_rows(name, tensor)
        if self._tower:
            yield from self._tower.items([name for name in read if name not in self._weights])

    def _with_all_rows(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Rows for the tokens that the checkpoint has none for: the mean of those it has.

        The model never reads the embedding of the image's token, and a mean row of `lm_head` gives the mean
        logit, so that a token nobody trained is never the likeliest.
        """
        added = _text(self._config).vocab_size - len(tensor) if name in (EMBEDDING, LM_HEAD) else 0
        if not added:
            return tensor
        total = torch.zeros(tensor.shape[1:], dtype=torch.float64)
        for start in range(0, len(tensor), _ROWS_AT_ONCE):
            total += tensor[start : start + _ROWS_AT_ONCE].double().sum(0)
        return torch.cat([tensor, (total / len(tensor)).to(tensor.dtype).expand(added, -1)])


def _needed_tower(vision: VisionSource | None, source: Path) -> Tower:
    if vision is None:
        raise BundleError(
            f"{source} has no vision tower of its own: give the CLIP too that its config.json names as "
            "mm_vision_tower"
        )
    return Tower(vision)


def _text(config: "LlavaConfig") -> Any:
    return config.text_config


def _expected_shapes(config: "LlavaConfig") -> dict[str, Shape]:
    """Name in the bundle and shape of every tensor of a LLaVA of this configuration, in the model's order."""
    from transformers import LlavaForConditionalGeneration

    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    return {published_name(name): tuple(tensor.shape) for name, tensor in model.named_parameters()}


def _generation_config(path: Path, config: "LlavaConfig") -> "GenerationConfig":
    """Greedy decoding; checked now, as Transformers would only when it is saved, after all the weights."""
    from transformers import GenerationConfig

    text = _text(config)
    try:
        generation = GenerationConfig(  # type: ignore[no-untyped-call]
            bos_token_id=text.bos_token_id,
            eos_token_id=text.eos_token_id,
            pad_token_id=text.pad_token_id,
            do_sample=False,
        )
        generation.validate(strict=True)
    except (ValueError, TypeError) as error:
        raise BundleError(f"with the tokens that {path} names no text can be generated: {error}") from error
    return generation
