"""Processes that die while a run goes on: what is committed stays, the rest is done, nothing is left
behind.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ffaa_core.table import Run, VerdictTable
from tests.fixtures.command import FAST, Ffaa

N_IMAGES, SHARD_SIZE = 52, 4
OPTIONS = ("--faces", "whole_image", "--shard-size", str(SHARD_SIZE), *FAST)
ORPHAN_LIMIT_S = 20


@pytest.fixture
def images(tmp_path: Path, make_images: Callable[[Path, int], Path]) -> Path:
    return make_images(tmp_path / "images", N_IMAGES)


def wait_until(condition: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s"
        time.sleep(0.05)


def committed(output: Path) -> int:
    return len(list(output.glob("runs/1/commits/*.json")))


def run_of(output: Path) -> Run:
    (run,) = VerdictTable.open(str(output)).runs()
    return run


class PollingReader(threading.Thread):
    """Reads the table again and again; `torn` tells every time it saw part of a shard."""

    def __init__(self, output: Path) -> None:
        super().__init__(daemon=True)
        self.output = output
        self.stopped = threading.Event()
        self.seen: list[int] = []
        self.torn: list[Counter[int]] = []

    def run(self) -> None:
        while not self.stopped.wait(0.2):
            shards: Counter[int] = Counter()
            for batch in VerdictTable.open(str(self.output)).rows(columns=["shard"]):
                shards.update(batch["shard"].to_pylist())
            self.seen.append(len(shards))
            if set(shards.values()) - {SHARD_SIZE}:
                self.torn.append(shards)

    def stop(self) -> None:
        self.stopped.set()
        self.join()


def assert_complete(ffaa: Ffaa, images: Path, output: Path) -> None:
    verified = ffaa("table", "verify", output)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    rows = [row for batch in VerdictTable.open(str(output)).rows() for row in batch.to_pylist()]
    assert sorted(row["image_uri"] for row in rows) == sorted(str(path) for path in images.iterdir())
    assert {row["status"] for row in rows} == {"scored"}


def test_a_killed_driver_loses_nothing_and_leaves_no_process(
    ffaa: Ffaa, images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "table"
    driver = ffaa.start("score", images, output, *OPTIONS)
    wait_until(lambda: committed(output) >= 4, 300)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_until(lambda: not ffaa.processes(), ORPHAN_LIMIT_S)
    before = {commit.shard: commit.writer for commit in run_of(output).commits()}
    assert 4 <= len(before) < N_IMAGES / SHARD_SIZE

    reader = PollingReader(output)
    reader.start()
    again = ffaa("score", images, output, *OPTIONS)
    reader.stop()

    assert again.returncode == 0, again.stderr
    after = {commit.shard: commit.writer for commit in run_of(output).commits()}
    assert {shard: after[shard] for shard in before} == before
    assert reader.torn == []
    assert len(set(reader.seen)) > 2
    assert_complete(ffaa, images, output)


def test_a_killed_answer_worker_is_replaced_without_a_restart(
    ffaa: Ffaa, images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "table"
    driver = ffaa.start("score", images, output, *OPTIONS)
    wait_until(lambda: committed(output) >= 2, 300)
    (worker,) = (p for p in ffaa.processes() if "AnswerStage" in " ".join(p.cmdline()))
    os.kill(worker.pid, signal.SIGKILL)
    reader = PollingReader(output)
    reader.start()
    assert driver.wait(timeout=300) == 0
    reader.stop()
    assert reader.torn == []
    wait_until(lambda: not ffaa.processes(), ORPHAN_LIMIT_S)
    assert len({commit.writer for commit in run_of(output).commits()}) == 1
    assert_complete(ffaa, images, output)
