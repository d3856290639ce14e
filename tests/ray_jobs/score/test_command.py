"""`ffaa score` on real photographs, as a user runs it, and the table it leaves."""

import asyncio
import csv
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ffaa_core.bundle import Bundle
from ffaa_core.bundle.bundle import write_bundle_json
from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.mids import Judge
from ffaa_core.rows import to_row
from ffaa_core.scorer import Scorer
from ffaa_core.settings import AnswerSettings, ScoringSettings
from ffaa_core.table import VerdictTable
from ffaa_core.table.schema import ROW_SCHEMA
from tests.fixtures.command import FAST, Ffaa
from tests.fixtures.scored import Scored

SETTLED_BY_CONTENT = {"scored", "no_face", "too_large", "decode_failed"}


@pytest.fixture(scope="module")
def command(demo_bundle: Bundle) -> Ffaa:
    return Ffaa(dict(os.environ) | {"FFAA_BUNDLE": str(demo_bundle.path)})


def test_every_file_has_exactly_one_row(uploads: Scored) -> None:
    files = [str(path) for path in uploads.images.rglob("*") if path.is_file()]
    assert sorted(row["image_uri"] for row in uploads.rows) == sorted(files)


def test_the_exit_code_says_whether_too_many_failed(uploads: Scored) -> None:
    failed = sum(row["status"].endswith("failed") or row["status"] == "crashed" for row in uploads.rows)
    assert failed > 0.05 * len(uploads.rows)
    assert uploads.exit_code == 3
    assert "exit code 3" in uploads.stdout


def test_a_user_sees_counts_and_no_traceback_or_log_line(uploads: Scored) -> None:
    assert f"{len(uploads.rows)} images" in uploads.stdout
    for status, count in Counter(row["status"] for row in uploads.rows).items():
        assert f"{status}" in uploads.stdout
        assert str(count) in uploads.stdout
    told = uploads.stdout + uploads.stderr
    for noise in ("Traceback", "WARNING 1", "INFO", "(raylet)", "pid=", "DeprecationWarning"):
        assert noise not in told


def test_every_image_is_settled_by_its_content(uploads: Scored) -> None:
    assert {row["status"] for row in uploads.rows} == SETTLED_BY_CONTENT


def test_what_cannot_be_decoded_says_why(uploads: Scored) -> None:
    with (uploads.images / "manifest.csv").open() as file:
        undecodable = {
            row["file"] for row in csv.DictReader(file) if row["expected_faces_hog"] == "undecodable"
        }
    rows = {Path(row["image_uri"]).name: row for row in uploads.rows}
    assert undecodable
    for name in undecodable:
        assert rows[name]["status"] in ("decode_failed", "too_large"), name
        assert len(rows[name]["status_detail"]) > 15, name
        assert "Error" not in rows[name]["status_detail"], name


def test_the_demo_models_verdicts_are_not_all_the_same(uploads: Scored) -> None:
    assert {face["verdict"] for face in uploads.faces} == {"real", "fake"}
    assert {face["difficulty"] for face in uploads.faces} == {"easy", "hard"}
    assert len({face["chosen"] for face in uploads.faces}) == 3


def test_rows_hold_everything_of_the_schema(uploads: Scored) -> None:
    for row in uploads.rows:
        assert list(row) == ROW_SCHEMA.names
        assert row["run"] == 1
        assert row["attempts"] == 1
        assert row["scored_at"].tzinfo is not None
        assert row["planned_version"] == row["image_version"]
        if row["status"] == "scored":
            missing = [name for name, value in row.items() if value is None]
            assert set(missing) <= {"status_detail"}, missing
    for face in uploads.faces:
        optional = {"forgery_type"} if face["verdict"] == "real" else set()
        missing = {name for name, value in face.items() if value is None}
        assert missing <= {"crop", "heatmap"} | optional
        assert [answer["question"] for answer in face["answers"]] == ["open", "assume_real", "assume_fake"]
        assert all(len(answer["class_probabilities"]) == 4 for answer in face["answers"])


def test_verdicts_follow_from_the_stored_class_probabilities(uploads: Scored) -> None:
    assert uploads.faces
    for face in uploads.faces:
        for answer in face["answers"]:
            p = answer["class_probabilities"]
            score = p[0] / (p[0] + p[2]) if answer["result"] == "real" else p[3] / (p[3] + p[1])
            assert math.isclose(answer["match_score"], score, abs_tol=1e-9)
        by_open, assuming_real, assuming_fake = face["answers"]
        opposite_first = [assuming_fake, assuming_real]
        if by_open["result"] == "fake":
            opposite_first.reverse()
        best = max([by_open, *opposite_first], key=lambda answer: answer["match_score"])
        forgery_score = best["match_score"] if best["result"] == "fake" else 1 - best["match_score"]
        assert face["chosen"] == best["question"]
        assert face["verdict"] == best["result"]
        assert face["forgery_type"] == best["forgery_type"]
        assert face["match_score"] == best["match_score"]
        assert math.isclose(face["forgery_score"], forgery_score, abs_tol=1e-9)
        assert face["contested"] == ((forgery_score > 0.5) != (face["verdict"] == "fake"))
        agree = len({answer["result"] for answer in face["answers"]}) == 1
        assert face["difficulty"] == ("easy" if agree else "hard")


def test_an_image_is_fake_by_one_face_and_real_only_by_all(uploads: Scored) -> None:
    for row in uploads.rows:
        verdicts = [face["verdict"] for face in row["faces"]]
        if not verdicts:
            assert row["verdict"] is None
            assert row["status"] != "scored"
            continue
        assert row["verdict"] == ("fake" if "fake" in verdicts else "real")
        assert row["forgery_score"] == max(face["forgery_score"] for face in row["faces"])
        assert row["contested"] == any(face["contested"] for face in row["faces"])
        assert row["n_faces"] == len(verdicts) <= row["n_faces_detected"]


def test_the_same_command_again_has_nothing_to_do(uploads: Scored, command: Ffaa) -> None:
    started = time.monotonic()
    again = command("score", uploads.images, uploads.output, *FAST)
    assert time.monotonic() - started < 20
    assert again.returncode == uploads.exit_code
    assert "nothing to do" in again.stdout
    assert len(VerdictTable.open(str(uploads.output)).runs()) == 1


def test_another_adapter_and_another_crop_setting_each_score_everything_anew(
    uploads: Scored, command: Ffaa, demo_bundle: Bundle, tmp_path: Path
) -> None:
    images = [uploads.images / name for name in ("001_img10.jpg", "002_img11.jpg")]
    manifest = tmp_path / "list.csv"
    manifest.write_text("image_uri\n" + "".join(f"{image}\n" for image in images))
    other = with_adapter(
        demo_bundle, tmp_path / "bundle", lambda key, weight: (key, -weight if "lora_B" in key else weight)
    )
    output = shutil.copytree(uploads.output, tmp_path / "table")
    for options in (["--bundle", other], ["--margin", "20"]):
        done = command("score", manifest, output, *options, *FAST)
        assert done.returncode == 0, done.stderr
    everything = [row for batch in VerdictTable.open(str(output)).rows() for row in batch.to_pylist()]
    by_run = {
        run: {row["image_uri"]: row["faces"] for row in everything if row["run"] == run} for run in (1, 2, 3)
    }
    assert len({row["fingerprint"] for row in everything}) == 3
    assert by_run[2].keys() == by_run[3].keys() == set(map(str, images))
    for image in map(str, images):
        first, other_adapter, other_crop = (
            {face["crop_sha256"]: face["answers"][0]["text"] for face in by_run[run][image]}
            for run in (1, 2, 3)
        )
        assert first.keys() == other_adapter.keys()
        assert all(first[crop] != other_adapter[crop] for crop in first)
        assert first.keys().isdisjoint(other_crop)


def with_adapter(
    bundle: Bundle, folder: Path, change: Callable[[str, torch.Tensor], tuple[str, torch.Tensor]]
) -> Path:
    """A copy of the bundle with each tensor of its adapter changed."""
    shutil.copytree(bundle.path, folder)
    weights = folder / "adapter" / "adapter_model.safetensors"
    save_file(dict(change(key, weight) for key, weight in load_file(weights).items()), weights)
    write_bundle_json(folder, provenance={"test": "a changed adapter"})
    return folder


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--faces", "some"], "invalid choice: 'some'"),
        (["--max-faces", "0"], "faces.max_faces: Input should be greater than or equal to 1, not 0"),
        (["--shard-size", "0"], "run.shard_size"),
        (["--formats", "JPG"], "'JPG'"),
        (["--retry", "all"], "'all' is not a valid Status"),
        (["--bundle", "/nowhere"], "no bundle at /nowhere"),
        (["--config", "/nowhere.yaml"], "cannot read the configuration file /nowhere.yaml"),
    ],
)
def test_wrong_usage_is_told_before_any_work_starts(
    command: Ffaa,
    make_images: Callable[[Path, int], Path],
    tmp_path: Path,
    options: list[str],
    told: str,
) -> None:
    images = make_images(tmp_path / "in", 1)
    done = command("score", images, tmp_path / "out", *options)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_would_do_nothing_is_refused(
    command: Ffaa, make_images: Callable[[Path, int], Path], demo_bundle: Bundle, tmp_path: Path
) -> None:
    broken = with_adapter(
        demo_bundle, tmp_path / "bundle", lambda key, weight: (key.replace(".language_model.", "."), weight)
    )
    images = make_images(tmp_path / "in", 1)
    done = command("score", images, tmp_path / "out", "--bundle", broken)
    assert done.returncode == 2
    assert "base_model.model.model.layers" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_wrong_input_makes_no_table(command: Ffaa, tmp_path: Path) -> None:
    done = command("score", tmp_path / "missing", tmp_path / "out")
    assert done.returncode == 2
    assert "missing does not exist" in done.stderr
    assert not (tmp_path / "out").exists()


async def test_the_library_gives_an_image_the_verdict_of_the_job(
    uploads: Scored, engine: VllmEngine, demo_bundle: Bundle
) -> None:
    names = (
        "001_img10.jpg",
        "031_selfie-many-people.jpg",
        "048_two_people.jpg",
        "096_BlueSquare.jpg",
        "076_corrupted.png",
    )
    scorer = Scorer(
        engine,
        Judge.load(demo_bundle),
        ScoringSettings(answers=AnswerSettings(max_tokens=int(FAST[1]))),
    )
    verdicts = await asyncio.gather(*(scorer.score((uploads.images / name).read_bytes()) for name in names))
    by_library = [to_row(verdict) for verdict in verdicts]
    assert [row["status"] for row in by_library] == [*["scored"] * 3, "no_face", "decode_failed"]
    assert sum(len(row["faces"] or ()) for row in by_library) >= 6
    by_job = {Path(row["image_uri"]).name: row for row in uploads.rows}
    for name, row in zip(names, by_library, strict=True):
        assert_same(by_job[name], row)


def assert_same(job: dict[str, Any], library: dict[str, Any]) -> None:
    """Equal but for what two engines' arithmetic, batched differently, may do to a score."""
    for column in ("image_sha256", "status", "status_detail", "verdict", "n_faces_detected", "n_faces"):
        assert job[column] == library[column], column
    for face, same in zip(job["faces"] or (), library["faces"] or (), strict=True):
        for field in ("box", "crop_sha256", "status", "verdict", "forgery_type", "chosen"):
            assert face[field] == same[field], field
        assert face["match_score"] == pytest.approx(same["match_score"], abs=1e-2)
        results = [[answer["result"] for answer in of["answers"]] for of in (face, same)]
        assert results[0] == results[1]
