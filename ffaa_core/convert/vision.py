"""CLIP as Transformers, OpenAI or open_clip publish it, made the `vision/` part of a bundle."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import VisionTransformer

from ffaa_core.convert.clip import transformers_names
from ffaa_core.convert.stacked import Stacked, Stacks, expected_sources
from ffaa_core.convert.vision_config import WANTED, open_clip_config, openai_config, transformers_config
from ffaa_core.convert.weights import Shape, Weights, check, write_weights
from ffaa_core.errors import BundleError
from ffaa_core.mids.loading import VISION_CONFIG, VISION_WEIGHTS, build_vision
from ffaa_core.settings import CROP_SIZE

_PROJECTION = "visual.proj"
_TRANSFORMERS_PROJECTION = "visual_projection.weight"
_TRANSFORMERS_TOWER = re.compile(
    r"(vision_model\.)?(embeddings|pre_layrnorm|encoder\.layers|post_layernorm)\."
)
_PASSED_OVER = re.compile(
    r"(text_model|transformer|token_embedding|ln_final|text)\..+|(vision_model\.)?embeddings\.position_ids"
    r"|text_projection(\.weight)?|positional_embedding|logit_scale|logit_bias|attn_mask"
    r"|input_resolution|context_length|vocab_size"
)
"""CLIP's text tower, and numbers that only training or OpenAI's own code needs."""


class VisionSource:
    """CLIP's vision transformer, checked and ready to be written.

    Attributes:
        config: open_clip's `model_cfg`, of the vision transformer alone.
        shapes: its tensors by open_clip's names, which begin with `visual.`.
    """

    def __init__(self, source: Path) -> None:
        """Read names, shapes and configuration.

        Args:
            source: a folder of Transformers (CLIPModel or CLIPVisionModel) or of open_clip, or a file of
                either with its configuration beside it, or OpenAI's own `.pt`. A file of open_clip's names
                that has no configuration is taken for OpenAI's: QuickGELU and heads of 64.

        Raises:
            BundleError: naming every missing, unknown and mis-shaped tensor, or what MIDS cannot use.
        """
        folder = source if source.is_dir() else source.parent
        self._weights = Weights.open(source).renamed(_without_text_tower)
        found = self._weights.shapes
        if any(name.startswith("visual.") for name in found):
            self.config = open_clip_config(folder) or openai_config(found)
            self.shapes = _tower_shapes(self.config, source)
            sources: Stacks = {name: (name,) for name in self.shapes}
            expected = self.shapes
        elif any(_TRANSFORMERS_TOWER.match(name) for name in found):
            self.config, has_projection = transformers_config(folder)
            self.shapes = _tower_shapes(self.config, source)
            sources = _transformers_sources(self.shapes, found)
            expected = expected_sources(sources, self.shapes)
            if has_projection or _TRANSFORMERS_PROJECTION in found:
                expected[_TRANSFORMERS_PROJECTION] = self.shapes[_PROJECTION][::-1]
        else:
            raise BundleError(
                f"{source} is not CLIP: its names begin neither with visual. (OpenAI's and open_clip's) nor "
                f"with vision_model. (Transformers'). {WANTED}"
            )
        check(found, expected, f"CLIP in {source}")
        self._tower = Stacked(self._weights, sources)

    @property
    def layout(self) -> dict[str, torch.Tensor]:
        """Every tensor without its values, by open_clip's names."""
        layout = self._tower.layout
        layout.setdefault(_PROJECTION, self._transformers_projection().to("meta"))
        return layout

    def write(self, directory: Path) -> None:
        """Write `vision/`, in the precision of the source.

        CLIP's projection, which MIDS never uses but open_clip wants, is zero where the source has none.
        """
        stem = VISION_WEIGHTS.removesuffix(".safetensors")
        write_weights(directory, self.layout, self.items, shard_bytes=None, stem=stem)
        config = json.dumps({"model_cfg": self.config}, indent=2) + "\n"
        (directory / VISION_CONFIG).write_text(config, encoding="utf-8")

    def items(self, names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Open_clip's name and value of those in `names`."""
        yield from self._tower.items([name for name in names if name in self._tower])
        if _PROJECTION in names and _PROJECTION not in self._tower:
            yield _PROJECTION, self._transformers_projection()

    def _transformers_projection(self) -> torch.Tensor:
        if _TRANSFORMERS_PROJECTION in self._weights:
            return self._weights.read(_TRANSFORMERS_PROJECTION).T
        dtype = next(iter(self._weights.meta.values())).dtype
        return torch.zeros(self.shapes[_PROJECTION], dtype=dtype)


def _without_text_tower(name: str) -> str | None:
    return None if _PASSED_OVER.fullmatch(name) else name


def _transformers_sources(shapes: Collection[str], found: Collection[str]) -> Stacks:
    """For each of open_clip's names those of Transformers, which may lack their prefix in a lone tower."""
    prefix = "vision_model." if any(name.startswith("vision_model.") for name in found) else ""
    return {
        name: tuple(prefix + part for part in transformers_names(name.removeprefix("visual.")))
        for name in shapes
        if name != _PROJECTION
    }


def _tower_shapes(config: Mapping[str, Any], source: Path) -> dict[str, Shape]:
    """Names and shapes of the vision transformer that `config` describes.

    Raises:
        BundleError: it does not see crops, or open_clip can build no such vision transformer.
    """
    size = config["vision_cfg"].get("image_size", 224)
    if size not in (CROP_SIZE, [CROP_SIZE, CROP_SIZE]):
        raise BundleError(
            f"CLIP in {source} sees images of {size} pixels, and MIDS shows it {CROP_SIZE}. {WANTED}"
        )
    try:
        with torch.device("meta"):
            tower = build_vision(dict(config))
    except Exception as error:  # open_clip builds whatever it is told, and fails in as many ways
        raise BundleError(f"open_clip cannot build the CLIP of {source}: {error}. {WANTED}") from error
    if not isinstance(tower, VisionTransformer):
        raise BundleError(f"CLIP in {source} is no vision transformer. {WANTED}")
    return {f"visual.{name}": tuple(tensor.shape) for name, tensor in tower.state_dict().items()}
