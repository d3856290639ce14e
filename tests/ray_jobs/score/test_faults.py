"""Processes that die while a run goes on: what is committed stays, the rest is done, nothing is left
behind.
"""

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ffaa_core.table import Run, VerdictTable
from tests.fixtures.command import FAST, Ffaa
from tests.fixtures.processes import wait_until

N_IMAGES, SHARD_SIZE = 39, 3
N_SHARDS = N_IMAGES // SHARD_SIZE
OPTIONS = ("--faces", "whole_image", "--shard-size", str(SHARD_SIZE), *FAST)
ORPHAN_LIMIT_S = 20


@pytest.fixture
def images(tmp_path: Path, make_images: Callable[[Path, int], Path]) -> Path:
    return make_images(tmp_path / "images", N_IMAGES)


def committed(output: Path) -> int:
    return len(list(output.glob("runs/1/commits/*.json")))


def is_alive(process: psutil.Process) -> bool:
    """Whether this very process still runs; one that only waits to be reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run_of(output: Path) -> Run:
    (run,) = VerdictTable.open(str(output)).runs()
    return run


class PollingReader(threading.Thread):
    """Reads the table again and again, from its first commit on, until it is stopped."""

    def __init__(self, output: Path) -> None:
        super().__init__(daemon=True)
        self.output = output
        self.stopped = threading.Event()
        self.seen: list[int] = []
        self.torn: list[Counter[int]] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self.stopped.wait(0.2):
                self._read()
        except Exception as error:
            self.error = error

    def _read(self) -> None:
        shards: Counter[int] = Counter()
        for batch in VerdictTable.open(str(self.output)).rows(columns=["shard"]):
            shards.update(batch["shard"].to_pylist())
        self.seen.append(len(shards))
        if set(shards.values()) - {SHARD_SIZE}:
            self.torn.append(shards)

    def assert_only_ever_saw_whole_shards(self) -> None:
        """Stop, and check that every read succeeded, saw no part of a shard, and no fewer than the last."""
        self.stopped.set()
        self.join()
        assert self.error is None
        assert self.torn == []
        assert self.seen == sorted(self.seen)
        assert len(set(self.seen)) > 3, self.seen


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[PollingReader]:
    reader = PollingReader(tmp_path / "table")
    yield reader
    reader.stopped.set()


def assert_complete(ffaa: Ffaa, images: Path, output: Path) -> None:
    verified = ffaa("table", "verify", output)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    rows = [row for batch in VerdictTable.open(str(output)).rows() for row in batch.to_pylist()]
    assert sorted(row["image_uri"] for row in rows) == sorted(str(path) for path in images.iterdir())
    assert {row["status"] for row in rows} == {"scored"}


def test_a_killed_driver_loses_nothing_and_leaves_no_process(
    ffaa: Ffaa, images: Path, tmp_path: Path, reader: PollingReader
) -> None:
    output = tmp_path / "table"
    driver = ffaa.start("score", images, output, *OPTIONS)
    wait_until(lambda: committed(output) >= 1, 300)
    reader.start()
    wait_until(lambda: committed(output) >= 4, 300)
    its_processes = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_until(lambda: not any(map(is_alive, its_processes)) and not ffaa.processes(), ORPHAN_LIMIT_S)
    before = {commit.shard: commit.writer for commit in run_of(output).commits()}
    assert 4 <= len(before) < N_SHARDS

    again = ffaa("score", images, output, *OPTIONS)

    assert again.returncode == 0, again.stderr
    reader.assert_only_ever_saw_whole_shards()
    after = {commit.shard: commit.writer for commit in run_of(output).commits()}
    assert {shard: after[shard] for shard in before} == before
    assert_complete(ffaa, images, output)


def test_a_killed_answer_worker_is_replaced_without_a_restart(
    ffaa: Ffaa, images: Path, tmp_path: Path, reader: PollingReader
) -> None:
    output = tmp_path / "table"
    driver = ffaa.start("score", images, output, *OPTIONS)
    wait_until(lambda: committed(output) >= 1, 300)
    reader.start()
    wait_until(lambda: committed(output) >= 2, 300)
    (worker,) = (p for p in ffaa.processes() if "AnswerStage" in " ".join(p.cmdline()))
    its_engine = worker.children(recursive=True)
    assert its_engine
    worker.kill()
    wait_until(lambda: not any(map(is_alive, its_engine)), ORPHAN_LIMIT_S)
    assert driver.poll() is None
    assert committed(output) < N_SHARDS

    assert driver.wait(timeout=300) == 0
    reader.assert_only_ever_saw_whole_shards()
    wait_until(lambda: not ffaa.processes(), ORPHAN_LIMIT_S)
    assert len({commit.writer for commit in run_of(output).commits()}) == 1
    assert_complete(ffaa, images, output)
