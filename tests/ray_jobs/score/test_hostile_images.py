"""A run meets images that kill, hang or exhaust the process that decodes them."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ffaa_core.bundle import Bundle
from ffaa_core.pipeline import examine
from ffaa_core.settings import FaceSettings, ScoringSettings, fingerprint
from ffaa_core.table import VerdictTable
from ray_jobs.score.config import RunSettings, ScoreConfig
from ray_jobs.score.driver import drive
from ray_jobs.score.inputs import list_images
from ray_jobs.score.job import Job
from tests.fixtures.command import FAST, Ffaa
from tests.fixtures.hostile import DEADLY_DECODER
from tests.ray_jobs.score.scripted import ScriptedAnswerStage, ScriptedJudgeStage

DEADLY = {"SEGFAULT": "killed by signal SEGV", "HANG": "timed out after {} s", "EAT MEMORY": "ran out of"}


def make_deadly(image: Path, deed: str) -> str:
    """Append the deed to a copy of the image; returns the copy's address."""
    copy = image.with_name(f"{deed} {image.name}")
    copy.write_bytes(image.read_bytes() + deed.encode())
    return str(copy)


def rows_of(output: Path) -> list[dict[str, Any]]:
    return [row for batch in VerdictTable.open(str(output)).rows() for row in batch.to_pylist()]


def assert_crashed(rows: list[dict[str, Any]], deadly: dict[str, str], seconds: int) -> None:
    """The deadly files, by the deed of each, have a row that says how it ended."""
    found = {row["image_uri"]: row for row in rows}
    for deed, uri in deadly.items():
        assert found[uri]["status"] == "crashed"
        assert DEADLY[deed].format(seconds) in found[uri]["status_detail"]


def test_each_costs_its_own_row_and_the_run_ends_complete(
    tmp_path: Path,
    demo_bundle: Bundle,
    make_images: Callable[[Path, int], Path],
    deadly_decoder: None,
    no_ray_left_over: None,
) -> None:
    images = make_images(tmp_path / "images", 9)
    deadly = {
        deed: make_deadly(image, deed) for deed, image in zip(DEADLY, sorted(images.iterdir()), strict=False)
    }
    config = ScoreConfig(faces=FaceSettings(mode="whole_image"), run=RunSettings(image_seconds=5))
    output, marked = str(tmp_path / "out"), fingerprint(config.scoring, demo_bundle.digests)
    run = VerdictTable.open(output, create=True).plan(
        list_images(str(images)), fingerprint=marked, settings={}, shard_size=4
    )
    assert run is not None
    job = Job(output=output, run=1, fingerprint=marked, bundle=str(demo_bundle.path), config=config)
    drive(
        job,
        run,
        run.open_shards(),
        verbose=False,
        answer_stage=ScriptedAnswerStage,
        judge_stage=ScriptedJudgeStage,
    )
    assert run.open_shards() == []
    rows = rows_of(tmp_path / "out")
    assert Counter(row["status"] for row in rows) == {"scored": 9, "crashed": 3}
    assert_crashed(rows, deadly, seconds=5)


@pytest.mark.slow
def test_real_photographs_beside_them_and_one_that_kills_the_engine_are_all_scored_in_one_run(
    shared_faces: Path, tmp_path: Path, ffaa: Ffaa
) -> None:
    images = Path(shutil.copytree(shared_faces / "uploads", tmp_path / "uploads"))
    os.chmod(images, 0o755)
    photograph = images / "044_obama.jpg"
    deadly = {deed: make_deadly(photograph, deed) for deed in DEADLY}
    kills_engine = examine(photograph.read_bytes(), ScoringSettings()).faces[0].face.crop_sha256
    settings = tmp_path / "settings.yaml"
    settings.write_text("run: {image_seconds: 60, max_failure_rate: 1}")
    hostile = replace(ffaa, module="tests.ray_jobs.score.deadly_ffaa").with_environment(
        PYTHONPATH=str(DEADLY_DECODER), FFAA_TEST_DEADLY_CROP=kills_engine
    )

    done = hostile("score", images, tmp_path / "out", "--config", settings, *FAST)

    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "out")
    assert sorted(row["image_uri"] for row in rows) == sorted(
        str(p) for p in images.rglob("*") if p.is_file()
    )
    assert_crashed(rows, deadly, seconds=60)
    killed = {row["image_uri"]: row["status_detail"] for row in rows if row["status"] == "answer_failed"}
    assert list(killed) == [str(photograph)]
    assert "the engine died or hung on it twice" in killed[str(photograph)]
    others = {row["status"] for row in rows if row["image_uri"] not in {*deadly.values(), *killed}}
    assert others == {"scored", "no_face", "too_large", "decode_failed"}
