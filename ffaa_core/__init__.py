"""FFAA batch, the core: what a verdict on a face is, how it is reached, and the table it is kept in."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffaa_core.bundle import Bundle, resolve_bundle
    from ffaa_core.scorer import Scorer
    from ffaa_core.settings import EngineSettings, ScoringSettings
    from ffaa_core.table import VerdictTable
    from ffaa_core.verdict import FaceVerdict, ImageVerdict

__all__ = [
    "Bundle",
    "EngineSettings",
    "FaceVerdict",
    "ImageVerdict",
    "Scorer",
    "ScoringSettings",
    "VerdictTable",
    "resolve_bundle",
]

_HOMES = {
    "Bundle": "bundle",
    "EngineSettings": "settings",
    "FaceVerdict": "verdict",
    "ImageVerdict": "verdict",
    "Scorer": "scorer",
    "ScoringSettings": "settings",
    "VerdictTable": "table",
    "resolve_bundle": "bundle",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that the command line starts without them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
