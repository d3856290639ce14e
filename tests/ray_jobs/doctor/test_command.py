"""`ffaa doctor` as a user runs it."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from ffaa_core import cli
from ffaa_core.table import VerdictTable
from tests.fixtures.command import FAST, Ffaa
from tests.fixtures.processes import wait_until

MakeImages = Callable[[Path, int], Path]


def findings(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def levels(done: subprocess.CompletedProcess[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for finding in findings(done):
        found.setdefault(finding["check"], set()).add(finding["level"])
    return found


def test_a_quick_look_leaves_nothing_behind(ffaa: Ffaa, make_images: MakeImages, tmp_path: Path) -> None:
    images, output = make_images(tmp_path / "in", 2), tmp_path / "new" / "out"
    done = ffaa("doctor", images, output, "--quick", "--format", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = levels(done)
    for check in (
        "input",
        "output",
        "race",
        "adapter",
        "table",
        "ray",
        "clock",
        "versions",
        "dlib",
        "memory",
    ):
        assert found[check] == {"ok"}, done.stdout
    assert "warning" in found["bundle"]  # its verdicts mean nothing
    assert "shard" not in found
    assert not (tmp_path / "new").exists()
    assert done.stderr == ""
    ffaa.await_no_process()


def test_every_error_is_told_and_the_rest_looked_at(ffaa: Ffaa, tmp_path: Path) -> None:
    unreachable = ffaa.with_environment(RAY_ADDRESS="127.0.0.1:9")
    (tmp_path / "out").write_text("a file")
    done = unreachable("doctor", tmp_path / "missing", tmp_path / "out", "--bundle", "/nowhere")
    assert done.returncode == 2
    told = " ".join(done.stdout.split())
    for error in (
        "error input nothing to score:",
        "error bundle no bundle at /nowhere",
        "error output cannot create",
        "error ray cannot reach the Ray cluster at 127.0.0.1:9",
        "4 errors: put that right before the run",
    ):
        assert error in told, done.stdout
    assert (tmp_path / "out").read_text() == "a file"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--price-per-hour", "0"], "0 is no price above 0"), (["--format", "xml"], "invalid choice: 'xml'")],
)
def test_wrong_usage_exits_2(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "in", "out", *options])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_wrong_settings_are_those_of_score(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "in", "out", "--max-faces", "0"]) == 2
    assert "faces.max_faces" in capsys.readouterr().err


@pytest.mark.slow
def test_a_shard_is_scored_timed_and_priced_with_the_real_models(
    ffaa: Ffaa, make_images: MakeImages, tmp_path: Path
) -> None:
    images, output = make_images(tmp_path / "in", 10), tmp_path / "out"
    VerdictTable.open(str(output), create=True)
    options = ("--faces", "whole_image", "--shard-size", "8", "--price-per-hour", "3.6", *FAST)
    done = ffaa("doctor", images, output, *options, "--format", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = findings(done)
    shard = [finding for finding in found if finding["check"] == "shard"]
    assert [finding["level"] for finding in shard] == ["ok"] * 3
    assert shard[0]["figures"] == {"images": 8, "faces": 8}
    rates, tokens = shard[1]["figures"], shard[2]["figures"]
    assert 0 < rates["images_per_second_least"] <= rates["images_per_second_most"]
    assert rates["faces_per_second"] == pytest.approx(rates["images_per_second_least"])
    assert 0.5 < tokens["cached_share"] < 1  # of three questions about an image, two find it computed
    (price,) = (finding["figures"] for finding in found if finding["check"] == "price")
    assert price["dollars_per_million_least"] == pytest.approx(1000 / rates["images_per_second_most"])
    assert any("the engine applies it (merged)" in finding["text"] for finding in found)
    assert [path.name for path in output.iterdir()] == ["ffaa-table.json"]
    ffaa.await_no_process()


@pytest.mark.slow
def test_a_doctor_that_is_told_to_stop_leaves_nothing_behind(
    ffaa: Ffaa, make_images: MakeImages, tmp_path: Path
) -> None:
    images, output = make_images(tmp_path / "in", 4), tmp_path / "out"
    doctor = ffaa.start("doctor", images, output, "--faces", "whole_image", *FAST)
    wait_until(lambda: any("AnswerStage" in line for line in command_lines(ffaa)), 120)
    assert list(output.glob("ffaa-doctor-*/table/runs/1/plan.json"))
    os.kill(doctor.pid, signal.SIGTERM)
    assert doctor.wait(60) != 0
    assert not output.exists()
    ffaa.await_no_process()


def command_lines(ffaa: Ffaa) -> list[str]:
    lines = []
    for process in ffaa.processes():
        with suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return lines
