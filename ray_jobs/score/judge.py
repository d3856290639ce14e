"""Last stage: MIDS judges a shard's faces, and the shard is committed. Runs as an actor pool of its own."""

import json
import os
import uuid
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ffaa_core.pipeline import FaceJudge, conclude
from ffaa_core.rows import to_row
from ffaa_core.table.schema import ROW_SCHEMA
from ray_jobs.score.attempts import Attempt
from ray_jobs.score.blocks import from_block, work_of
from ray_jobs.score.careful import CarefulJudge
from ray_jobs.score.job import Job
from ray_jobs.score.progress import Progress, begin, enter, failures_told, loading
from ray_jobs.score.pulse import BeatingJudge, Pulse

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.actor import ActorHandle


class JudgeStage:
    """Holds MIDS. Its writer's uuid says in a commit which process made it."""

    def __init__(self, job: Job, progress: "ActorHandle[Progress]") -> None:
        from ffaa_core.environment import environment

        self._progress = progress
        with failures_told(progress), loading(progress, "MIDS"):
            self._judge = BeatingJudge(self.load_judge(job), self._beat)
            self._run = job.open_run()
        self._pulse = Pulse(job.config.run.hang_seconds)
        self._writer = uuid.uuid4().hex
        self._environment = environment()

    def load_judge(self, job: Job) -> FaceJudge:
        """Load the bundle's MIDS; other judges override this."""
        from ffaa_core.mids import Judge

        return Judge.load(job.open_bundle("mids", "vision", "text"))

    def __call__(self, block: "pa.Table") -> "pa.Table":
        """Judge and commit a shard; returns one row: the shard and, as JSON, what it came to.

        If the accelerator is lost or MIDS hangs this process exits: Ray starts another and repeats the shard.
        No row comes of a block without rows, a shard that was not begun since the run stops.
        """
        import pyarrow as pa
        import torch

        if not block.num_rows:
            return pa.table({"shard": pa.array([], pa.int64()), "came_to": pa.array([], pa.string())})
        with failures_told(self._progress):
            try:
                return self._judge_and_commit(block)
            except torch.AcceleratorError:
                os._exit(1)

    def _judge_and_commit(self, block: "pa.Table") -> "pa.Table":
        import pyarrow as pa

        shard, images = from_block(block)
        enter(self._progress, shard, "judge")
        attempt = begin(self._progress, "judge", shard)
        judge: FaceJudge = self._judge
        if attempt.careful:
            judge = CarefulJudge(judge, attempt.given_up, lambda face: self._note(attempt, face))
        with self._pulse.working():
            verdicts = conclude([image.pending for image in images], judge)
        self._note(attempt, None)
        written = {
            "run": self._run.ordinal,
            "fingerprint": self._run.fingerprint,
            "shard": shard,
            "scored_at": datetime.now(UTC),
        }
        rows = pa.Table.from_pylist(
            [
                to_row(verdict) | image.plan_columns | written
                for image, verdict in zip(images, verdicts, strict=True)
            ],
            ROW_SCHEMA,
        )
        engine = work_of(block) | {"judge": self._environment}
        outcome = self._run.commit(shard, rows, writer=self._writer, engine=engine)
        if not outcome.won:
            self._progress.report.remote(shard, "shards lost", 1)
        self._progress.leave.remote(shard)
        commit = outcome.commit
        came_to = {"won": outcome.won, "counts": asdict(commit.counts), "engine": commit.engine}
        return pa.table({"shard": [shard], "came_to": [json.dumps(came_to)]})

    def _beat(self) -> None:
        self._pulse.beat()
        self._progress.move.remote()

    def _note(self, attempt: Attempt, face: str | None) -> None:
        import ray

        ray.get(self._progress.note.remote(attempt, face))
