"""`ffaa` with scripted models, to be run as a module: one of its stages once stops in the midst of a shard.

$FFAA_TEST_HOLD names the stage: `fetch` and `answer` stop in the shard of the highest number, `judge` in the
last that is open. Whoever comes there first writes its node's address to the file `held` in the folder
$FFAA_TEST_HOLD_FOLDER and waits until there is a `released`; whoever comes there later goes on.
"""

import asyncio
import functools
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ffaa_core import cli
from ffaa_core.engine.base import AnswerEngine
from ray_jobs.score import driver, end_to_end, fetch_crop
from ray_jobs.score.attempts import Attempt
from ray_jobs.score.blocks import ShardImage
from ray_jobs.score.job import Job
from tests.ray_jobs.score.scripted import ScriptedAnswerStage, ScriptedJudgeStage

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.actor import ActorHandle

    from ray_jobs.score.progress import Progress


def hold(stage: str) -> None:
    """Stop here if this is the stage to be held, and nobody was."""
    import ray

    folder = Path(os.environ["FFAA_TEST_HOLD_FOLDER"])
    if os.environ["FFAA_TEST_HOLD"] != stage:
        return
    address = ray.util.get_node_ip_address()
    whole = folder / f"held by {os.getpid()} on {address}"
    whole.write_text(address)
    try:
        os.link(whole, folder / "held")
    except FileExistsError:
        return
    while not (folder / "released").exists():
        time.sleep(0.05)


def last_shard(job: Job) -> int:
    return job.open_run().n_shards - 1


def held_fetch_crop(block: "pa.Table", job: Job, progress: "ActorHandle[Progress]") -> "pa.Table":
    fetched = fetch_crop.fetch_crop(block, job, progress)
    if block.column("shard")[0].as_py() == last_shard(job):
        hold("fetch")
    return fetched


class HeldAnswerStage(ScriptedAnswerStage):
    async def _answer(
        self, attempt: Attempt, images: list[ShardImage], engine: AnswerEngine
    ) -> list[ShardImage]:
        answered = await super()._answer(attempt, images, engine)
        if attempt.shard == last_shard(self._job):
            await asyncio.to_thread(hold, "answer")
        return answered


class HeldJudgeStage(ScriptedJudgeStage):
    """Stops after it has judged a shard, and before it commits it."""

    def _note(self, attempt: Attempt, face: str | None) -> None:
        super()._note(attempt, face)
        if self._run.open_shards() == [attempt.shard]:
            hold("judge")


if __name__ == "__main__":
    # Ray finds the stages again by the name of their module, which here is `__main__`.
    from tests.ray_jobs.score import held_ffaa

    end_to_end.check_adapter = lambda bundle: None
    driver.fetch_crop = held_ffaa.held_fetch_crop
    driver.drive = functools.partial(
        driver.drive, answer_stage=held_ffaa.HeldAnswerStage, judge_stage=held_ffaa.HeldJudgeStage
    )
    sys.exit(cli.main())
