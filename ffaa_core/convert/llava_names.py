"""The names of a LLaVA checkpoint's tensors: the original ones, both of Transformers, and the bundle's.

The bundle's are those that Transformers published checkpoints under: `language_model.model.`,
`language_model.lm_head.`, `vision_tower.vision_model.`, `multi_modal_projector.linear_{1,2}.`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ffaa_core.engine.checkpoint import PUBLISHED_PREFIXES

TOWER = "vision_tower.vision_model."
PROJECTOR = "multi_modal_projector."
EMBEDDING = "language_model.model.embed_tokens.weight"
LM_HEAD = "language_model.lm_head.weight"

_COMPUTED = (".rotary_emb.inv_freq", "embeddings.position_ids")
_ONLY_OF_TILES = ("image_newline", "model.image_newline")


@dataclass(frozen=True)
class Layout:
    """One way to name tensors: pairs of its prefix and the bundle's, of which the first that fits holds."""

    title: str
    prefixes: tuple[tuple[str, str], ...]

    def bundle_name(self, name: str) -> str | None:
        """The bundle's name. None of what it has no place for: what is computed, or of tiles."""
        if name.endswith(_COMPUTED) or name in _ONLY_OF_TILES:
            return None
        return _exchange(name, self.prefixes)

    def own_name(self, bundle_name: str) -> str:
        """This layout's name, the other way round."""
        return _exchange(bundle_name, [(ours, own) for own, ours in self.prefixes])


def _exchange(name: str, prefixes: Iterable[tuple[str, str]]) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


ORIGINAL = Layout(
    "the original LLaVA layout",
    (
        ("model.vision_tower.vision_tower.vision_model.", TOWER),
        ("model.vision_tower.vision_tower.", TOWER),
        ("model.mm_projector.0.", f"{PROJECTOR}linear_1."),
        ("model.mm_projector.2.", f"{PROJECTOR}linear_2."),
        ("model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
    ),
)
TRANSFORMERS = Layout("the Transformers layout", PUBLISHED_PREFIXES)
PUBLISHED = Layout("the published Transformers layout", ((TOWER, TOWER), ("vision_tower.", TOWER)))


def layout_of(names: Iterable[str]) -> Layout:
    """The layout of a LLaVA checkpoint, by the names its language model has."""
    for name in names:
        if name.startswith("model.language_model."):
            return TRANSFORMERS
        if name.startswith("language_model."):
            return PUBLISHED
    return ORIGINAL
