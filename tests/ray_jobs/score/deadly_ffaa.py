"""`ffaa` with the real models, to be run as a module: the crop $FFAA_TEST_DEADLY_CROP kills its engine."""

import functools
import os
import signal
import sys

from ffaa_core import cli
from ffaa_core.engine.base import AnswerEngine, Crop, EngineFigures, Generation
from ray_jobs.score import driver
from ray_jobs.score.answer import AnswerStage
from ray_jobs.score.job import Job


class DeadlyEngine:
    """The engine, in whose process the crop brings about a segmentation fault."""

    def __init__(self, engine: AnswerEngine) -> None:
        self._engine, self.description = engine, engine.description

    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        if crop_sha256 == os.environ["FFAA_TEST_DEADLY_CROP"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        return await self._engine.generate(prompt, crop, crop_sha256, max_tokens, constraint)

    def figures(self) -> EngineFigures:
        return self._engine.figures()

    async def close(self) -> None:
        await self._engine.close()


class DeadlyAnswerStage(AnswerStage):
    async def start_engine(self, job: Job) -> AnswerEngine:
        return DeadlyEngine(await super().start_engine(job))


if __name__ == "__main__":
    # Ray finds the stages again by the name of their module, which here is `__main__`.
    from tests.ray_jobs.score import deadly_ffaa

    driver.drive = functools.partial(driver.drive, answer_stage=deadly_ffaa.DeadlyAnswerStage)
    sys.exit(cli.main())
