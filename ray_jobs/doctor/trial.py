"""One shard scored for real, through the real stages one after another, each of them timed."""

import time
from dataclasses import dataclass
from typing import Any

from ffaa_core.errors import ConfigurationError, EngineError, JobError
from ffaa_core.table import Counts, PlannedImage, VerdictTable
from ray_jobs.score.answer import AnswerStage
from ray_jobs.score.cluster import Shares
from ray_jobs.score.config import ScoreConfig
from ray_jobs.score.failures import explain
from ray_jobs.score.fetch_crop import fetch_crop
from ray_jobs.score.job import Job
from ray_jobs.score.judge import JudgeStage
from ray_jobs.score.progress import start_progress, told_failure

START_LIMIT_S = 1800
"""For a cluster to start its GPU nodes, and for the models to load."""
SHARD_LIMIT_S = 3600


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Seconds that loading the models took, and each stage with the shard; and what came of it."""

    loading: float
    fetching: float
    answering: float
    judging: float
    counts: Counts
    engine: dict[str, Any]

    @property
    def seconds(self) -> float:
        """From the shard's number to its commit."""
        return self.fetching + self.answering + self.judging


def try_shard(
    config: ScoreConfig,
    table_uri: str,
    fingerprint: str,
    bundle: str,
    images: list[PlannedImage],
    shares: Shares,
) -> Timed:
    """Score the first shard of `images` into a table of its own at `table_uri`.

    Raises:
        FFAAError: a model does not load, or a stage fails.
    """
    run = VerdictTable.open(table_uri, create=True).plan(
        images[: config.run.shard_size],
        fingerprint=fingerprint,
        settings={},
        shard_size=config.run.shard_size,
        shard_bytes=config.run.shard_bytes,
    )
    if run is None:
        raise ConfigurationError("there is no image to try a shard with")
    job = Job(output=table_uri, run=run.ordinal, fingerprint=fingerprint, bundle=bundle, config=config)
    stages = _Stages(job, shares)
    try:
        loading = stages.load()
        fetching, block = stages.fetch()
        answering, block = stages.answer(block)
        judging, _ = stages.judge(block)
    finally:
        stages.stop()
    commit = next(iter(run.commits()))
    return Timed(
        loading=loading,
        fetching=fetching,
        answering=answering,
        judging=judging,
        counts=commit.counts,
        engine=commit.engine,
    )


class _Stages:
    """The three stages of the job, outside of Ray Data, so that each can be timed alone."""

    def __init__(self, job: Job, shares: Shares) -> None:
        import ray

        self._job, self._shares = job, shares
        self._progress = start_progress()
        self._answer: Any = (
            ray.remote(AnswerStage)
            .options(num_cpus=shares.answer_cpus, num_gpus=shares.answer_gpus)
            .remote(job, self._progress)
        )
        self._judge: Any = (
            ray.remote(JudgeStage)
            .options(num_cpus=shares.judge_cpus, num_gpus=shares.judge_gpus)
            .remote(job, self._progress)
        )

    def load(self) -> float:
        """Wait for both models, which load at the same time as they do in a run."""
        ready = [self._answer.__ray_ready__.remote(), self._judge.__ray_ready__.remote()]
        return self._timed("the models loaded", ready, START_LIMIT_S)[0]

    def fetch(self) -> tuple[float, Any]:
        import pyarrow as pa
        import ray

        task = ray.remote(fetch_crop).options(num_cpus=self._shares.fetch_cpus, max_retries=0)
        block = task.remote(pa.table({"shard": [0]}), self._job, self._progress)
        return self._timed("a shard was fetched and cropped", block)

    def answer(self, block: Any) -> tuple[float, Any]:
        return self._timed("a shard was answered", self._answer.__call__.remote(block))

    def judge(self, block: Any) -> tuple[float, Any]:
        return self._timed("a shard was judged", self._judge.__call__.remote(block))

    def stop(self) -> None:
        """End both actors, and what they started."""
        import ray

        for actor in (self._answer, self._judge):
            ray.kill(actor)

    def _timed(self, doing: str, waiting: Any, limit_s: float = SHARD_LIMIT_S) -> tuple[float, Any]:
        """How long it took from now, and its result."""
        import ray

        started = time.monotonic()
        try:
            result = ray.get(waiting, timeout=limit_s)
        except ray.exceptions.GetTimeoutError as failure:
            raise JobError(f"nothing came within {limit_s / 60:.0f} minutes while {doing}") from failure
        except ray.exceptions.RayError as failure:
            raise told_failure(self._progress) or EngineError(
                f"a stage failed while {doing} (--verbose says more): {explain(failure)}"
            ) from failure
        return time.monotonic() - started, result
