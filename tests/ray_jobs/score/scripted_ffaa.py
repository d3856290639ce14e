"""`ffaa` with scripted models, to be run as a module: for tests that need its process and not its answers.

$FFAA_TEST_LOAD_S is how long its engine loads, and $FFAA_TEST_READ_S, $FFAA_TEST_FACE_S and
$FFAA_TEST_JUDGE_S how long it takes to read an image, to answer a request and to judge a face; the file
$FFAA_TEST_BEGUN exists from its engine's first request on.
"""

import asyncio
import functools
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffaa_core import cli
from ffaa_core.engine.base import AnswerEngine, Crop, Generation
from ffaa_core.pipeline import FaceJudge, Logits
from ffaa_core.settings import ScoringSettings
from ray_jobs.score import driver, end_to_end, fetch_crop
from ray_jobs.score.job import Job
from tests.ray_jobs.score.scripted import (
    ScriptedAnswerStage,
    ScriptedEngine,
    ScriptedJudge,
    ScriptedJudgeStage,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.actor import ActorHandle

    from ray_jobs.score.progress import Progress


def seconds(name: str) -> float:
    return float(os.environ.get(f"FFAA_TEST_{name}_S", "0"))


def slow_read_image(uri: str, settings: ScoringSettings) -> fetch_crop.Read:
    time.sleep(seconds("READ"))
    return read_image(uri, settings)


def slow_fetch_crop(block: "pa.Table", job: Job, progress: "ActorHandle[Progress]") -> "pa.Table":
    fetch_crop.read_image = slow_read_image
    return fetch_crop.fetch_crop(block, job, progress)


class SlowEngine(ScriptedEngine):
    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        Path(os.environ["FFAA_TEST_BEGUN"]).touch()
        await asyncio.sleep(seconds("FACE"))
        return await super().generate(prompt, crop, crop_sha256, max_tokens, constraint)


class SlowAnswerStage(ScriptedAnswerStage):
    async def start_engine(self, job: Job) -> AnswerEngine:
        time.sleep(seconds("LOAD"))
        return SlowEngine()


class SlowJudge(ScriptedJudge):
    def logits(self, crops: Sequence[Crop], masked_answers: Sequence[Sequence[str]]) -> list[Logits | None]:
        time.sleep(seconds("JUDGE") * len(crops))
        return super().logits(crops, masked_answers)


class SlowJudgeStage(ScriptedJudgeStage):
    def load_judge(self, job: Job) -> FaceJudge:
        return SlowJudge()


read_image = fetch_crop.read_image

if __name__ == "__main__":
    # Ray finds the stages again by the name of their module, which here is `__main__`.
    from tests.ray_jobs.score import scripted_ffaa

    end_to_end.check_adapter = lambda bundle: None
    driver.fetch_crop = scripted_ffaa.slow_fetch_crop
    driver.drive = functools.partial(
        driver.drive,
        answer_stage=scripted_ffaa.SlowAnswerStage,
        judge_stage=scripted_ffaa.SlowJudgeStage,
    )
    sys.exit(cli.main())
