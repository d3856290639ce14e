"""`ffaa` whose images are made up once they are planned: run as a module, it takes the command's arguments.

Nothing is fetched, decoded or asked of a model. All else is real: listing, plan, Ray Data, the code of the
stages, Parquet, commits, close. One image in `FACE_EVERY` has a face, the others have none.
"""

import asyncio
import functools
import hashlib
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from ffaa_core import cli
from ffaa_core.faces import Face
from ffaa_core.pipeline import PendingFace, PendingImage, answer, conclude
from ffaa_core.rows import to_row
from ffaa_core.settings import CROP_SIZE, AnswerSettings
from ffaa_core.table import Run
from ffaa_core.table.schema import ROW_SCHEMA
from ffaa_core.verdict import Box, ImageVerdict, Status, roll_up
from ray_jobs.score import driver
from ray_jobs.score.blocks import BLOCK_SCHEMA, ShardImage, to_block
from ray_jobs.score.job import Job
from ray_jobs.score.progress import Progress, enter
from tests.ray_jobs.score.scripted import (
    ScriptedAnswerStage,
    ScriptedEngine,
    ScriptedJudge,
    ScriptedJudgeStage,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.actor import ActorHandle

FACE_EVERY = 16


def fetch(block: "pa.Table", job: Job, progress: "ActorHandle[Progress]") -> "pa.Table":
    """What `fetch_crop` gives, without reading an image."""
    (shard,) = block.column("shard").to_pylist()
    if not enter(progress, shard, "fetch"):
        return BLOCK_SCHEMA.empty_table()
    images = [
        ShardImage(
            image_uri=row["image_uri"],
            planned_version=row["planned_version"],
            image_version=row["planned_version"],
            attempts=row["attempts"],
            pending=made_up(row["image_uri"]),
        )
        for row in job.open_run().plan_rows(shard).to_pylist()
    ]
    progress.report.remote(shard, "faces found", sum(len(image.pending.faces) for image in images))
    enter(progress, shard, "fetched")
    return to_block(shard, images, {})


def made_up_rows(run: Run, shard: int) -> "pa.Table":
    """The rows that a shard of such images comes to, without Ray."""
    import pyarrow as pa

    planned = run.plan_rows(shard).to_pylist()
    verdicts = conclude(
        asyncio.run(_answered([made_up(row["image_uri"]) for row in planned])), ScriptedJudge()
    )
    written = {
        "run": run.ordinal,
        "fingerprint": run.fingerprint,
        "shard": shard,
        "scored_at": datetime.now(UTC),
    }
    rows = [
        to_row(verdict) | row | {"image_version": row["planned_version"]} | written
        for row, verdict in zip(planned, verdicts, strict=True)
    ]
    return pa.Table.from_pylist(rows, ROW_SCHEMA)


async def _answered(images: list[PendingImage]) -> list[PendingImage]:
    engine, settings, room = ScriptedEngine(), AnswerSettings(), nullcontext()
    return [await answer(image, engine, settings, room) for image in images]


def made_up(uri: str) -> PendingImage:
    """An image that follows from its name alone."""
    digest = hashlib.sha256(uri.encode())
    number = int.from_bytes(digest.digest())
    has_face = number % FACE_EVERY == 0
    image = ImageVerdict(
        image_sha256=digest.hexdigest(),
        image_bytes=200_000,
        status=Status.CRASHED,
        width=1024,
        height=768,
        format="JPEG",
        n_faces_detected=int(has_face),
    )
    if not has_face:
        return PendingImage(image=roll_up(image, ()))
    crop = np.full((CROP_SIZE, CROP_SIZE, 3), number // FACE_EVERY % 256, np.uint8)
    face = Face(
        box=Box(left=300, top=200, right=700, bottom=600),
        detection_score=1.5,
        crop=crop,
        crop_sha256=hashlib.sha256(crop.tobytes()).hexdigest(),
    )
    return PendingImage(image=image, faces=(PendingFace(face=face),))


if __name__ == "__main__":
    # Ray finds the stage again by the name of its module, which here is `__main__`.
    from benchmarks import synthetic_ffaa

    driver.fetch_crop = synthetic_ffaa.fetch
    driver.drive = functools.partial(
        driver.drive, answer_stage=ScriptedAnswerStage, judge_stage=ScriptedJudgeStage
    )
    sys.exit(cli.main())
