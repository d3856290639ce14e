"""An answer stage whose engine answers at once, for tests of everything around the engine."""

from typing import ClassVar

from ffaa_core.answers import Determination, Fields, ForgeryType
from ffaa_core.engine.base import AnswerEngine, Crop, EngineFigures, Generation
from ray_jobs.score.answer import AnswerStage
from ray_jobs.score.job import Job


class ScriptedEngine:
    """Says real or fake by the crop's digest."""

    description: ClassVar[dict[str, str]] = {"adapter": "scripted"}

    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        fake = crop_sha256 < "8"
        fields = Fields(
            description=f"A face, {crop_sha256[:8]}.",
            reasoning="It was scripted.",
            result=Determination.FAKE if fake else Determination.REAL,
            probability=0.5,
            forgery_type=ForgeryType.IDENTITY_EXCHANGE if fake else None,
        )
        return Generation(
            text=fields.render(),
            finish_reason="stop",
            prompt_tokens=600,
            cached_tokens=0,
            generated_tokens=40,
            token_ids=(),
        )

    def figures(self) -> EngineFigures:
        return EngineFigures()

    async def close(self) -> None:
        pass


class ScriptedAnswerStage(AnswerStage):
    """Everything of the real stage but its engine."""

    async def start_engine(self, job: Job) -> AnswerEngine:
        return ScriptedEngine()
