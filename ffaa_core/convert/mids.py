"""The published `mids.pth`, made the `mids/` part of a bundle."""

import json
import re
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import T5Config, T5EncoderModel

from ffaa_core.convert.clip import transformers_names
from ffaa_core.convert.stacked import Stacked, expected_sources
from ffaa_core.convert.text import TextSource
from ffaa_core.convert.vision import VisionSource
from ffaa_core.convert.weights import Shape, Weights, check, write_weights
from ffaa_core.errors import BundleError
from ffaa_core.mids.loading import MIDS_CONFIG, MIDS_WEIGHTS, build_vision
from ffaa_core.mids.network import MidsConfig, MidsNetwork, is_trained

_IMAGE_ENCODER = "image_encoder."
_PUBLISHED_IMAGE_ENCODER = "image_encoder.vision_model."


class MidsSource:
    """What was trained of MIDS, checked against the encoders it belongs to, and ready to be written.

    Attributes:
        config: the sizes that its keys show. Fewer than the published two trained blocks or three layers of
            self-attention are never concluded from keys: they would be missing.
    """

    def __init__(
        self, source: Path, vision: VisionSource, text: TextSource, config: MidsConfig | None = None
    ) -> None:
        """Read names and shapes.

        Args:
            source: `mids.pth`, with or without `module.` before its keys.
            vision: the image encoder, whose last blocks `source` replaces.
            text: the text encoder.
            config: the sizes, where they are not to be concluded from the keys.

        Raises:
            BundleError: naming every missing, unknown and mis-shaped tensor.
        """
        weights = Weights.open(source)
        names = weights.shapes.keys()
        prefix = "module." if any(name.startswith("module.") for name in names) else ""
        self.config = config or _concluded(names, vision.config["vision_cfg"]["layers"])
        shapes = _trained_shapes(vision, text, self.config)
        sources = {name: tuple(prefix + part for part in _published_names(name)) for name in shapes}
        check(weights.shapes, expected_sources(sources, shapes), f"MIDS in {source}")
        self._trained = Stacked(weights, sources)

    def write(self, directory: Path) -> None:
        """Write `mids/`, in the precision of the source."""
        stem = MIDS_WEIGHTS.removesuffix(".safetensors")
        write_weights(directory, self._trained.layout, self._trained.items, shard_bytes=None, stem=stem)
        config = json.dumps(asdict(self.config), indent=2) + "\n"
        (directory / MIDS_CONFIG).write_text(config, encoding="utf-8")


def _published_names(name: str) -> tuple[str, ...]:
    """What `mids.pth` calls our tensor `name`, without `module.`: three names where open_clip stacks them."""
    if not name.startswith(_IMAGE_ENCODER):
        return (name,)
    return tuple(
        _PUBLISHED_IMAGE_ENCODER + part for part in transformers_names(name.removeprefix(_IMAGE_ENCODER))
    )


def _concluded(names: Collection[str], image_blocks: int) -> MidsConfig:
    """At least the published sizes; more where there are keys for more."""
    published = MidsConfig()
    blocks = _numbers(names, r"image_encoder\.vision_model\.encoder\.layers\.(\d+)\.")
    layers = _numbers(names, r"se_attn\.(\d+)\.")
    return MidsConfig(
        trained_blocks=max(published.trained_blocks, image_blocks - min(blocks, default=image_blocks)),
        self_attention_layers=max(published.self_attention_layers, max(layers, default=-1) + 1),
    )


def _numbers(names: Collection[str], pattern: str) -> set[int]:
    return {int(match[1]) for name in names if (match := re.match(rf"(?:module\.)?{pattern}", name))}


def _trained_shapes(vision: VisionSource, text: TextSource, config: MidsConfig) -> dict[str, Shape]:
    """Our names and shapes of what was trained of a MIDS of these sizes.

    Raises:
        BundleError: there is no such network.
    """
    try:
        with torch.device("meta"):
            encoder = T5EncoderModel(T5Config.from_dict(text.config.to_dict()))
            network = MidsNetwork(build_vision(vision.config), encoder, config)
    except (AssertionError, ValueError) as error:
        raise BundleError(
            f"there is no MIDS of {config.heads} heads on the text encoder in {text.source}: {error}"
        ) from error
    return {
        name: tuple(tensor.shape)
        for name, tensor in network.state_dict().items()
        if is_trained(name, network)
    }
