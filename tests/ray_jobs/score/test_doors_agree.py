"""The library and the batch job give the same image the same verdict."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ffaa_core.bundle import Bundle
from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.mids import Judge
from ffaa_core.rows import to_row
from ffaa_core.scorer import Scorer
from ffaa_core.settings import AnswerSettings, ScoringSettings
from ffaa_core.table import VerdictTable
from tests.fixtures.command import FAST, Ffaa

UPLOADS = (
    "001_img10.jpg",
    "031_selfie-many-people.jpg",
    "048_two_people.jpg",
    "096_BlueSquare.jpg",
    "076_corrupted.png",
)
NOISE = 1e-2
"""What two engines' arithmetic, batched differently, may do to a score."""

Rows = dict[str, dict[str, Any]]


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def by_library(engine: VllmEngine, demo_bundle: Bundle, shared_faces: Path) -> Rows:
    settings = ScoringSettings(answers=AnswerSettings(max_tokens=int(FAST[1])))
    scorer = Scorer(engine, Judge.load(demo_bundle), settings)
    files = [(shared_faces / "uploads" / name).read_bytes() for name in UPLOADS]
    verdicts = await asyncio.gather(*map(scorer.score, files))
    return {name: to_row(verdict) for name, verdict in zip(UPLOADS, verdicts, strict=True)}


@pytest.fixture
def by_job(ffaa: Ffaa, shared_faces: Path, tmp_path: Path) -> Rows:
    manifest, output = tmp_path / "list.csv", tmp_path / "table"
    manifest.write_text("image_uri\n" + "".join(f"{shared_faces / 'uploads' / name}\n" for name in UPLOADS))
    options = ("--dtype", "float32", "--max-failure-rate", "1", "--shard-size", "2")
    done = ffaa("score", manifest, output, *FAST, *options)
    assert done.returncode == 0, done.stderr
    rows = [row for batch in VerdictTable.open(str(output)).rows() for row in batch.to_pylist()]
    return {Path(row["image_uri"]).name: row for row in rows}


def test_both_doors_give_every_image_the_same_verdict(by_library: Rows, by_job: Rows) -> None:
    assert by_job.keys() == by_library.keys()
    assert [by_library[name]["status"] for name in UPLOADS] == [*["scored"] * 3, "no_face", "decode_failed"]
    assert sum(len(row["faces"] or ()) for row in by_library.values()) >= 6
    for name in UPLOADS:
        assert_same(by_job[name], by_library[name])


def assert_same(job: dict[str, Any], library: dict[str, Any]) -> None:
    for column in ("image_sha256", "status", "status_detail", "verdict", "n_faces_detected", "n_faces"):
        assert job[column] == library[column], column
    for face, same in zip(job["faces"] or (), library["faces"] or (), strict=True):
        for field in ("box", "crop_sha256", "status", "verdict", "forgery_type", "chosen"):
            assert face[field] == same[field], field
        assert face["match_score"] == pytest.approx(same["match_score"], abs=NOISE)
        results = [[answer["result"] for answer in of["answers"]] for of in (face, same)]
        assert results[0] == results[1]
