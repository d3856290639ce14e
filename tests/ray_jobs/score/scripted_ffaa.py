"""`ffaa` with scripted models, to be run as a module: for tests that need its process and not its answers.

$FFAA_TEST_LOAD_S is how long its engine loads, $FFAA_TEST_FACE_S how long one request takes; the file
$FFAA_TEST_BEGUN exists from its first request on.
"""

import asyncio
import functools
import os
import sys
import time
from pathlib import Path

from ffaa_core import cli
from ffaa_core.engine.base import AnswerEngine, Crop, Generation
from ray_jobs.score import driver, end_to_end
from ray_jobs.score.job import Job
from tests.ray_jobs.score.scripted import ScriptedAnswerStage, ScriptedEngine, ScriptedJudgeStage


class SlowEngine(ScriptedEngine):
    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        Path(os.environ["FFAA_TEST_BEGUN"]).touch()
        await asyncio.sleep(float(os.environ.get("FFAA_TEST_FACE_S", "0")))
        return await super().generate(prompt, crop, crop_sha256, max_tokens, constraint)


class SlowAnswerStage(ScriptedAnswerStage):
    async def start_engine(self, job: Job) -> AnswerEngine:
        time.sleep(float(os.environ.get("FFAA_TEST_LOAD_S", "0")))
        return SlowEngine()


if __name__ == "__main__":
    # Ray finds the stages again by the name of their module, which here is `__main__`.
    from tests.ray_jobs.score import scripted_ffaa

    end_to_end.check_adapter = lambda bundle: None
    driver.drive = functools.partial(
        driver.drive, answer_stage=scripted_ffaa.SlowAnswerStage, judge_stage=ScriptedJudgeStage
    )
    sys.exit(cli.main())
