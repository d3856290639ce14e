"""A run that is told to stop, or that stalls: what it commits, says and leaves behind."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ffaa_core.table import Run, VerdictTable
from ray_jobs.score.answer import SHARDS_IN_FLIGHT
from tests.fixtures.command import Ffaa
from tests.fixtures.processes import wait_until

N_IMAGES = 60
GONE_S = 20
"""How soon nothing of a run that ended may be left."""


class Started:
    """A run with scripted models, going on."""

    def __init__(self, ffaa: Ffaa, folder: Path, images: Path, *settings: str, **environment: str) -> None:
        self.images, self.output, self.begun = images, folder / "table", folder / "begun"
        environment["BEGUN"] = str(self.begun)
        self._ffaa = replace(ffaa, module="tests.ray_jobs.score.scripted_ffaa").with_environment(
            **{f"FFAA_TEST_{name}": value for name, value in environment.items()}
        )
        self._config, self._said = folder / "ffaa.yaml", folder / "said"
        self._config.write_text("\n  ".join(["faces: {mode: whole_image}\nrun:", "shard_size: 3", *settings]))
        self.process = self._ffaa.start(
            "score", self.images, self.output, "--config", self._config, said=self._said
        )

    @property
    def said(self) -> str:
        return self._said.read_text()

    @property
    def n_committed(self) -> int:
        return len(list(self.output.glob("runs/1/commits/*.json")))

    def run(self) -> Run:
        (run,) = VerdictTable.open(str(self.output)).runs()
        return run

    def workers(self, of: str) -> list[psutil.Process]:
        return [process for process in self._ffaa.processes() if of in " ".join(process.cmdline())]

    def wait_until(self, condition: Callable[[], object]) -> None:
        def holds() -> object:
            assert self.process.poll() is None, self.said
            return condition()

        wait_until(holds, 120, lambda: self.said)

    def assert_ends(self, *, within_s: float) -> None:
        """It ends with exit code 75, says so in a line of its own, and leaves no process."""
        try:
            assert self.process.wait(within_s) == 75, self.said
        except subprocess.TimeoutExpired:
            pytest.fail(f"it goes on: {self.said}")
        self._ffaa.await_no_process(GONE_S)
        assert "Traceback" not in self.said


@pytest.fixture
def start(ffaa: Ffaa, tmp_path: Path, make_images: Callable[[Path, int], Path]) -> Callable[..., Started]:
    images = make_images(tmp_path / "images", N_IMAGES)
    return lambda *settings, **environment: Started(ffaa, tmp_path, images, *settings, **environment)


def test_a_signal_lets_shards_in_flight_finish_and_begins_no_other(start: Callable[..., Started]) -> None:
    run = start(FACE_S="2")
    run.wait_until(run.begun.exists)
    assert run.n_committed == 0
    run.process.send_signal(signal.SIGTERM)
    run.assert_ends(within_s=60)
    assert "SIGTERM: no new shards; those in flight may finish within 10 min" in run.said
    assert "ffaa: stopped by SIGTERM; the same command goes on" in run.said
    assert 1 <= run.n_committed <= SHARDS_IN_FLIGHT
    assert run.run().summary() is None


@pytest.mark.slow
def test_a_run_in_which_nothing_moves_says_where_it_stands_and_ends(start: Callable[..., Started]) -> None:
    run = start("stall_minutes: 0.5", FACE_S="0.1")
    run.wait_until(lambda: run.n_committed >= 1)
    (worker,) = run.workers("AnswerStage")
    worker.suspend()
    run.assert_ends(within_s=90)
    assert "ffaa: no progress for" in run.said
    assert " in answer for" in run.said
    assert f"(process {worker.pid} on " in run.said


@pytest.mark.slow
def test_a_stall_while_models_load_is_told_as_such(start: Callable[..., Started]) -> None:
    run = start("stall_minutes: 0.5", LOAD_S="3600")
    run.assert_ends(within_s=120)
    assert "engine loading for" in run.said


@pytest.mark.slow
@pytest.mark.parametrize(
    "send",
    [
        pytest.param(lambda process: process.terminate(), id="SIGTERM"),
        pytest.param(lambda process: os.killpg(process.pid, signal.SIGINT), id="Ctrl-C"),
        pytest.param(lambda process: os.killpg(process.pid, signal.SIGTERM), id="SIGTERM to its group"),
    ],
)
def test_a_signal_while_models_load_ends_the_run_soon(
    start: Callable[..., Started], send: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    run = start(LOAD_S="3600")
    run.wait_until(lambda: run.workers("AnswerStage"))
    send(run.process)
    run.assert_ends(within_s=30)
    assert run.n_committed == 0


@pytest.mark.slow
def test_a_second_signal_ends_the_run_at_once(start: Callable[..., Started]) -> None:
    run = start(FACE_S="3600")
    run.wait_until(run.begun.exists)
    run.process.send_signal(signal.SIGTERM)
    run.wait_until(lambda: "SIGTERM: no new shards" in run.said)
    time.sleep(3)
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGTERM)
    run.assert_ends(within_s=15)


@pytest.mark.slow
def test_shards_that_take_longer_than_the_grace_period_are_named(start: Callable[..., Started]) -> None:
    run = start("grace_seconds: 3", FACE_S="3600")
    run.wait_until(run.begun.exists)
    run.process.send_signal(signal.SIGTERM)
    run.assert_ends(within_s=30)
    assert "stopped by SIGTERM; not finished in time: shard " in run.said


@pytest.mark.slow
def test_a_signal_during_the_last_shards_completes_the_run(start: Callable[..., Started]) -> None:
    run = start("max_images: 3", FACE_S="5")
    run.wait_until(run.begun.exists)
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(60) == 0, run.said
    assert run.run().summary() is not None
    assert "57 more images are to be done" in run.said
