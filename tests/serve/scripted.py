"""The application with models that answer at once, or take as long as they are told to.

`import_path: tests.serve.scripted:build`; each request for an answer takes $FFAA_TEST_ANSWER_S seconds, and
none comes as long as there is a file $FFAA_TEST_HOLD, beside which `held` says that one waits.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.serve import Application

from ffaa_core.engine.base import Crop, Generation
from ffaa_core.pipeline import FaceJudge, Logits
from ffaa_core.settings import from_mapping
from serve.app import assemble
from serve.config import ServeConfig
from serve.engine import Engine, ServedEngine
from serve.judge import Judge
from serve.release import Release
from tests.serve.stand_ins import ScriptedEngine, sure


class SlowEngine(ScriptedEngine):
    """Takes its time."""

    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        await asyncio.sleep(float(os.environ.get("FFAA_TEST_ANSWER_S", "0")))
        hold = Path(os.environ.get("FFAA_TEST_HOLD", "/nowhere"))
        while hold.exists():
            hold.with_name("held").touch()
            await asyncio.sleep(0.02)
        return await super().generate(prompt, crop, crop_sha256, max_tokens, constraint)


class ScriptedEngines(Engine):
    async def start_engine(self, release: Release) -> ServedEngine:
        return SlowEngine()


class SureJudge:
    def logits(self, crops: Sequence[Crop], masked_answers: Sequence[Sequence[str]]) -> list[Logits | None]:
        return sure(masked_answers)


class ScriptedJudges(Judge):
    def load_judge(self, release: Release) -> FaceJudge:
        return SureJudge()


def build(args: dict[str, Any]) -> Application:
    """As `serve.app.build`."""
    release = Release.of(from_mapping(ServeConfig, args))
    return assemble(release, engine=ScriptedEngines, judge=ScriptedJudges)
