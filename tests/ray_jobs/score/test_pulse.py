"""A process in which a model hangs ends; one that is idle, or slow and alive, does not."""

import subprocess
import sys

import numpy as np
import pytest

from ffaa_core.settings import CROP_SIZE
from ray_jobs.score.pulse import BeatingJudge
from tests.ray_jobs.score.scripted import ScriptedJudge

PROLOGUE = "import ctypes, time; from ray_jobs.score.pulse import Pulse; pulse = Pulse(2)\n"


def end_of(deeds: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROLOGUE + deeds], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    "hang",
    [
        pytest.param("time.sleep(60)", id="waiting"),
        pytest.param("ctypes.PyDLL(None).sleep(60)", id="in C, holding the interpreter"),
    ],
)
def test_work_that_hangs_ends_its_process_and_says_where_it_stood(hang: str) -> None:
    ended = end_of(f"with pulse.working():\n    pulse.beat()\n    {hang}")
    assert ended.returncode == 1
    assert 'File "<string>", line 4' in ended.stderr


def test_neither_slow_work_that_goes_on_nor_idleness_ends_a_process() -> None:
    ended = end_of(
        "with pulse.working(), pulse.working():\n"
        "    for _ in range(5): time.sleep(0.5); pulse.beat()\n"
        "pulse.beat(); time.sleep(2.5)"
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_work_that_others_go_on_with_is_still_watched_when_some_is_done() -> None:
    ended = end_of("with pulse.working():\n    with pulse.working(): pass\n    time.sleep(60)")
    assert ended.returncode == 1


def test_a_judge_beats_after_every_few_faces_and_says_the_same() -> None:
    crops = [np.full((CROP_SIZE, CROP_SIZE, 3), value, np.uint8) for value in range(18)]
    answers = [["no crop's name"] * 3 for _ in crops]
    beats: list[None] = []
    judge = BeatingJudge(ScriptedJudge(), lambda: beats.append(None))
    assert judge.logits(crops, answers) == ScriptedJudge().logits(crops, answers) == [None] * 18
    assert len(beats) == 2
