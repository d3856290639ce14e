"""A published CLIP as the vision tower of a LLaVA that comes without one."""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ffaa_core.convert.clip import transformers_names
from ffaa_core.convert.llava_names import TOWER
from ffaa_core.convert.vision import VisionSource

if TYPE_CHECKING:
    from transformers import CLIPVisionConfig

_PREFIX, _PROJECTION = "visual.", "visual.proj"


class _Slice(NamedTuple):
    """A tensor that is one of `parts` equal ones, the `number`-th, stacked in open_clip's tensor `name`."""

    name: str
    number: int
    parts: int


class Tower:
    """CLIP's vision transformer by the names it has in `mllm/`, without the projection, which LLaVA lacks."""

    def __init__(self, vision: VisionSource) -> None:
        self._vision = vision
        self._slices = {
            TOWER + part: _Slice(name, number, len(parts))
            for name in vision.shapes
            if name != _PROJECTION
            for parts in [transformers_names(name.removeprefix(_PREFIX))]
            for number, part in enumerate(parts)
        }

    @property
    def config(self) -> "CLIPVisionConfig":
        from transformers import CLIPVisionConfig

        clip: Mapping[str, Any] = self._vision.config["vision_cfg"]
        return CLIPVisionConfig(
            hidden_size=clip["width"],
            intermediate_size=round(clip["width"] * clip.get("mlp_ratio", 4.0)),
            num_hidden_layers=clip["layers"],
            num_attention_heads=clip["width"] // clip.get("head_width", 64),
            image_size=clip["image_size"],
            patch_size=clip["patch_size"],
            projection_dim=self._vision.config["embed_dim"],
            hidden_act="quick_gelu" if self._vision.config["quick_gelu"] else "gelu",
        )

    @property
    def meta(self) -> dict[str, torch.Tensor]:
        """Every tensor without its values."""
        layout = self._vision.layout
        return {name: _cut(layout[of.name], of) for name, of in self._slices.items()}

    def items(self, names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        wanted = {name: self._slices[name] for name in names}
        stacked = dict(self._vision.items({of.name for of in wanted.values()}))
        for name, of in wanted.items():
            yield name, _cut(stacked[of.name], of)


def _cut(stacked: torch.Tensor, of: _Slice) -> torch.Tensor:
    return stacked.chunk(of.parts)[of.number]
