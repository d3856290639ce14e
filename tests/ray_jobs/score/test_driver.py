"""Shards through Ray Data: whole, however large, or not at all."""

import functools
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from ffaa_core.bundle import Bundle
from ffaa_core.engine.base import AnswerEngine, Crop, Generation
from ffaa_core.errors import EngineDeadError, RunAbandonedError, TornShardError
from ffaa_core.pipeline import FaceJudge, Logits, examine
from ffaa_core.settings import CROP_SIZE, FaceSettings, fingerprint
from ffaa_core.table import Run, VerdictTable
from ray_jobs.score.config import RunSettings, ScoreConfig
from ray_jobs.score.driver import drive
from ray_jobs.score.inputs import list_images
from ray_jobs.score.job import Job
from tests.ffaa_core.table.shards import rows_of
from tests.ray_jobs.score.scripted import (
    ScriptedAnswerStage,
    ScriptedEngine,
    ScriptedJudge,
    ScriptedJudgeStage,
)

CONFIG = ScoreConfig(faces=FaceSettings(mode="whole_image"))


class TearingAnswerStage(ScriptedAnswerStage):
    """Loses a row of every block, as a split block would."""

    def __call__(self, block: pa.Table) -> pa.Table:
        return super().__call__(block).slice(1)


class GpuAnswerStage(ScriptedAnswerStage):
    """Starts only where Ray gave it most of a GPU."""

    async def start_engine(self, job: Job) -> AnswerEngine:
        assert ray.get_runtime_context().get_assigned_resources()["GPU"] == 0.9
        return await super().start_engine(job)


class GpuJudgeStage(ScriptedJudgeStage):
    """Starts only where Ray gave it the rest of that GPU."""

    def load_judge(self, job: Job) -> FaceJudge:
        assert ray.get_runtime_context().get_assigned_resources()["GPU"] == 0.1
        return super().load_judge(job)


def planned(images: Path, output: Path, bundle: Bundle, shard_size: int) -> tuple[Job, Run]:
    marked = fingerprint(CONFIG.scoring, bundle.digests)
    run = VerdictTable.open(str(output), create=True).plan(
        list_images(str(images)), fingerprint=marked, settings={}, shard_size=shard_size
    )
    assert run is not None
    job = Job(output=str(output), run=run.ordinal, fingerprint=marked, bundle=str(bundle.path), config=CONFIG)
    return job, run


def test_a_shard_whose_crops_exceed_500_mb_arrives_whole(
    tmp_path: Path, demo_bundle: Bundle, make_images: Callable[[Path, int], Path], no_ray_left_over: None
) -> None:
    count = 500_000_000 // (CROP_SIZE * CROP_SIZE * 3) + 10
    images = make_images(tmp_path / "images", count)
    job, run = planned(images, tmp_path / "out", demo_bundle, shard_size=count)
    assert run.n_shards == 1
    drive(
        job,
        run,
        run.open_shards(),
        verbose=False,
        answer_stage=ScriptedAnswerStage,
        judge_stage=ScriptedJudgeStage,
    )
    (commit,) = run.commits()
    assert commit.counts.statuses == {"scored": count}
    rows = pa.Table.from_batches(VerdictTable.open(str(tmp_path / "out")).rows(columns=["image_uri"]))
    assert rows["image_uri"].to_pylist() == sorted(str(path) for path in images.iterdir())


def test_shards_go_whole_through_actors_that_hold_gpus(
    tmp_path: Path,
    demo_bundle: Bundle,
    make_images: Callable[[Path, int], Path],
    monkeypatch: pytest.MonkeyPatch,
    no_ray_left_over: None,
) -> None:
    monkeypatch.setattr(ray, "init", functools.partial(ray.init, num_gpus=1))  # Ray takes its word for it
    job, run = planned(make_images(tmp_path / "images", 5), tmp_path / "out", demo_bundle, shard_size=2)
    drive(
        job,
        run,
        run.open_shards(),
        verbose=False,
        answer_stage=GpuAnswerStage,
        judge_stage=GpuJudgeStage,
    )
    assert [commit.counts.statuses for commit in run.commits()] == [{"scored": n} for n in (2, 2, 1)]


def test_no_more_engines_start_than_there_are_shards_to_do(
    tmp_path: Path,
    demo_bundle: Bundle,
    make_images: Callable[[Path, int], Path],
    monkeypatch: pytest.MonkeyPatch,
    no_ray_left_over: None,
) -> None:
    class CountedAnswerStage(ScriptedAnswerStage):
        async def start_engine(self, job: Job) -> AnswerEngine:
            Path(job.output, f"engine-{os.getpid()}").touch()
            return await super().start_engine(job)

    room = functools.partial(ray.init, num_cpus=16, num_gpus=16)  # Ray takes its word for it
    monkeypatch.setattr(ray, "init", room)
    job, run = planned(make_images(tmp_path / "images", 6), tmp_path / "out", demo_bundle, shard_size=2)
    run.commit(1, rows_of(run, 1), writer="w", engine={})
    drive(
        job,
        run,
        run.open_shards(),
        verbose=False,
        answer_stage=CountedAnswerStage,
        judge_stage=ScriptedJudgeStage,
    )
    assert run.open_shards() == []
    assert len(list((tmp_path / "out").glob("engine-*"))) == 2


def die_in_engine() -> None:
    raise EngineDeadError("killed by this face")


def die() -> None:
    os._exit(1)


def hang() -> None:
    time.sleep(3600)


@pytest.mark.parametrize(
    ("in_engine", "in_judge"),
    [(die_in_engine, hang), pytest.param(hang, die, marks=pytest.mark.slow)],
)
def test_faces_that_kill_or_hang_the_engine_or_mids_cost_their_images_and_no_others(
    in_engine: Callable[[], None],
    in_judge: Callable[[], None],
    tmp_path: Path,
    demo_bundle: Bundle,
    make_images: Callable[[Path, int], Path],
    no_ray_left_over: None,
) -> None:
    images = make_images(tmp_path / "images", 8)
    paths = sorted(images.iterdir())
    deadly_for_engine = crop_of(paths[1])
    deadly_for_judge = crop_of(paths[6])

    class DeadlyEngine(ScriptedEngine):
        async def generate(self, prompt: str, crop: Crop, crop_sha256: str, *rest: Any) -> Generation:
            if crop_sha256 == deadly_for_engine:
                in_engine()
            return await super().generate(prompt, crop, crop_sha256, *rest)

    class DeadlyJudge(ScriptedJudge):
        def logits(
            self, crops: Sequence[Crop], masked_answers: Sequence[Sequence[str]]
        ) -> list[Logits | None]:
            if any(hashlib.sha256(crop.tobytes()).hexdigest() == deadly_for_judge for crop in crops):
                in_judge()
            return super().logits(crops, masked_answers)

    class DeadlyAnswerStage(ScriptedAnswerStage):
        async def start_engine(self, job: Job) -> AnswerEngine:
            return DeadlyEngine()

    class DeadlyJudgeStage(ScriptedJudgeStage):
        def load_judge(self, job: Job) -> FaceJudge:
            return DeadlyJudge()

    job, run = planned(images, tmp_path / "out", demo_bundle, shard_size=4)
    job = replace(job, config=replace(CONFIG, run=RunSettings(hang_minutes=0.06)))
    shards = run.open_shards()
    drive(job, run, shards, verbose=False, answer_stage=DeadlyAnswerStage, judge_stage=DeadlyJudgeStage)

    rows = [row for batch in VerdictTable.open(str(tmp_path / "out")).rows() for row in batch.to_pylist()]
    found = {row["image_uri"]: (row["status"], row["status_detail"]) for row in rows}
    expected = dict.fromkeys(map(str, paths), "scored")
    expected |= {str(paths[1]): "answer_failed", str(paths[6]): "judge_failed"}
    assert {uri: status for uri, (status, _) in found.items()} == expected
    assert "the engine died or hung on it twice" in found[str(paths[1])][1]
    assert "MIDS failed on it" in found[str(paths[6])][1]


def crop_of(path: Path) -> str:
    """Digest of an image's one crop."""
    (face,) = examine(path.read_bytes(), CONFIG.scoring).faces
    return face.face.crop_sha256


def test_a_torn_block_is_refused_and_never_committed(
    tmp_path: Path, demo_bundle: Bundle, make_images: Callable[[Path, int], Path], no_ray_left_over: None
) -> None:
    images = make_images(tmp_path / "images", 6)
    job, run = planned(images, tmp_path / "out", demo_bundle, shard_size=3)
    with pytest.raises(TornShardError, match="2 rows, planned are 3"):
        drive(job, run, run.open_shards(), verbose=False, answer_stage=TearingAnswerStage)
    assert run.open_shards() == [0, 1]


def test_a_run_that_is_abandoned_while_it_is_worked_on_stops_at_its_next_commit(
    tmp_path: Path, demo_bundle: Bundle, make_images: Callable[[Path, int], Path], no_ray_left_over: None
) -> None:
    class AbandoningAnswerStage(ScriptedAnswerStage):
        async def start_engine(self, job: Job) -> AnswerEngine:
            job.open_run().abandon()
            return ScriptedEngine()

    images = make_images(tmp_path / "images", 6)
    job, run = planned(images, tmp_path / "out", demo_bundle, shard_size=2)
    with pytest.raises(RunAbandonedError, match=r"run 1 of .* was abandoned; start the same command again"):
        drive(
            job,
            run,
            run.open_shards(),
            verbose=False,
            answer_stage=AbandoningAnswerStage,
            judge_stage=ScriptedJudgeStage,
        )
    assert [commit.file for commit in run.commits()] == [None] * 3
    _, again = planned(images, tmp_path / "out", demo_bundle, shard_size=2)
    assert (again.ordinal, again.n_images) == (2, 6)
