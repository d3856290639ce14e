"""Stages whose models answer at once, for tests of everything around the models."""

import hashlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ffaa_core.answers import Determination, Fields, ForgeryType
from ffaa_core.engine.base import AnswerEngine, Crop, EngineFigures, Generation
from ffaa_core.pipeline import FaceJudge, Logits
from ray_jobs.score.answer import AnswerStage
from ray_jobs.score.job import Job
from ray_jobs.score.judge import JudgeStage


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


class ScriptedJudge:
    """Is sure of every answer that names the crop it came with, and fails on any other."""

    def logits(self, crops: Sequence[Crop], masked_answers: Sequence[Sequence[str]]) -> list[Logits | None]:
        return [
            np.array([[9.0, 0, 0, 9.0]] * len(answers))
            if all(hashlib.sha256(crop.tobytes()).hexdigest()[:8] in answer for answer in answers)
            else None
            for crop, answers in zip(crops, masked_answers, strict=True)
        ]


class ScriptedJudgeStage(JudgeStage):
    """Everything of the real stage but its MIDS."""

    def load_judge(self, job: Job) -> FaceJudge:
        return ScriptedJudge()
