"""The sections of configuration that every door has."""

from pydantic import Field
from pydantic.dataclasses import dataclass

from ffaa_core.errors import ConfigurationError
from ffaa_core.examiner import memory_needed
from ffaa_core.settings import (
    STRICT,
    AnswerSettings,
    DecodeSettings,
    EngineSettings,
    FaceSettings,
    ScoringSettings,
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScorerSettings:
    """Which models to use, what they measure, and how the engine runs."""

    bundle: str | None = None
    decode: DecodeSettings = Field(default_factory=DecodeSettings)
    faces: FaceSettings = Field(default_factory=FaceSettings)
    answers: AnswerSettings = Field(default_factory=AnswerSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)

    @property
    def scoring(self) -> ScoringSettings:
        """The part that can change a measurement."""
        return ScoringSettings(decode=self.decode, faces=self.faces, answers=self.answers)

    def require_memory(self, setting: str, mib: int | None) -> None:
        """Raise ConfigurationError if `mib`, the value of `setting`, is less than some image may need."""
        needed = memory_needed(self.scoring)
        if mib is not None and mib < needed:
            raise ConfigurationError(
                f"{setting} is {mib}, but an image within decode.max_pixels may need {needed} MiB: raise the "
                "one or lower the other"
            )
