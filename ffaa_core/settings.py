"""What can be set, checked when it is made.

`ScoringSettings` can change a measurement and is hashed into the fingerprint. `EngineSettings` says how the
same measurement is computed and is recorded with a run, never hashed.
"""

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ffaa_core.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SCORING_VERSION = 1
"""Raised by hand when code changes what is measured; tests/ffaa_core/test_golden.py guards it."""

CROP_SIZE = 336
"""Side of a crop in pixels: the input size of CLIP ViT-L/14-336 and so of LLaVA and MIDS."""

FaceMode = Literal["detect", "published", "whole_image"]
AdapterMode = Literal["auto", "live", "merged"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
ImageFormat = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid")
"""For every settings class: unknown names are refused."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DecodeSettings:
    """Limits on untrusted bytes, checked before pixels are decoded.

    `formats` are Pillow's names of the formats read, told by content; `max_bytes` bounds the file and
    `max_pixels` width times height.
    """

    formats: Annotated[tuple[ImageFormat, ...], AfterValidator(lambda names: tuple(sorted(set(names))))] = (
        "GIF",
        "JPEG",
        "PNG",
        "WEBP",
    )
    max_bytes: Annotated[int, Field(ge=1)] = 64 * 2**20
    max_pixels: Annotated[int, Field(ge=1)] = 64_000_000


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FaceSettings:
    """Which faces of an image are scored, and how they are cropped.

    `detect` finds every face, largest first, at most `max_faces`; `published` is the
    published detector and its first face only; `whole_image` takes the file as a crop. `margin` is in pixels.
    """

    mode: FaceMode = "detect"
    max_faces: Annotated[int, Field(ge=1)] = 16
    margin: Annotated[int, Field(ge=0)] = 40


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnswerSettings:
    """How the three questions are asked: the id of the open question's wording and the cap on new tokens."""

    open_question: Annotated[int, Field(ge=0, le=9)] = 0
    max_tokens: Annotated[int, Field(ge=1)] = 512


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScoringSettings:
    """Everything that can change a measurement."""

    decode: DecodeSettings = Field(default_factory=DecodeSettings)
    faces: FaceSettings = Field(default_factory=FaceSettings)
    answers: AnswerSettings = Field(default_factory=AnswerSettings)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from nested mappings, such as a config file or a sealed plan.

        Raises:
            ConfigurationError: a name is unknown, or a value is of the wrong type or out of range.
        """
        return from_mapping(cls, values)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EngineSettings:
    """How the answer engine runs; none of it changes what is measured beyond decoding noise.

    `adapter`: `live` applies the LoRA in vLLM, `merged` adds it to the weights; `auto` is merged, since live
    LoRA costs 6-10x on a CPU and 1.4x on a GPU. `kv_cache_gib` is the CPU's key-value cache and `cpu_threads`
    the threads it computes with, 0 being all cores but one.
    `max_concurrent_faces` bounds the faces one engine is asked about at once.
    """

    adapter: AdapterMode = "auto"
    dtype: DType = "auto"
    tensor_parallel_size: Annotated[int, Field(ge=1)] = 1
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.85
    kv_cache_gib: Annotated[int, Field(ge=1)] = 1
    cpu_threads: Annotated[int, Field(ge=0)] = 0
    max_concurrent_faces: Annotated[int, Field(ge=1)] = 32


def from_mapping(cls: type[T], values: dict[str, Any]) -> T:
    """Make the settings class `cls` from nested mappings, refusing unknown names.

    Raises:
        ConfigurationError: every offending setting by its dotted name, and what it must be.
    """
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        raise ConfigurationError("; ".join(map(_problem, error.errors()))) from None


def _problem(error: "ErrorDetails") -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "unexpected_keyword_argument":
        return f"there is no setting {name}"
    return f"{name}: {error['msg']}, not {error['input']!r}"


def fingerprint(settings: ScoringSettings, bundle_digests: dict[str, str]) -> str:
    """Name of one way of measuring: 16 hex digits over settings, bundle digests and `SCORING_VERSION`."""
    content = {"scoring_version": SCORING_VERSION, "settings": settings.to_dict(), "bundle": bundle_digests}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
