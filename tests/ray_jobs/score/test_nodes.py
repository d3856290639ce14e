"""Nodes that vanish in the midst of a run, cut off or killed: others soon do what they had to do."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ffaa_core.bundle import Bundle
from ffaa_core.table import VerdictTable
from tests.fixtures.command import Ffaa
from tests.fixtures.machines import Machine
from tests.fixtures.nodes import Cluster, kill_raylet
from tests.fixtures.processes import wait_until
from tests.ray_jobs.score.test_faults import assert_complete

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

N_SHARDS, SHARD_SIZE = 8, 3
GOES_ON_S = 90
"""How soon after a node vanished the next shard must be committed."""


class Held:
    """A run on a cluster of a head and three nodes. One stage of it stops in the midst of the last shard."""

    def __init__(self, cluster: Cluster, folder: Path, bundle: Bundle) -> None:
        self.cluster, self.folder = cluster, folder
        self.images, self.output = folder / "images", folder / "table"
        options = ("--bundle", bundle.path, "--faces", "whole_image", "--shard-size", SHARD_SIZE)
        line = ("-m", "tests.ray_jobs.score.held_ffaa", "score", self.images, self.output, *options)
        with (folder / "said").open("wb") as said:
            self.process = subprocess.Popen(
                cluster.head.command(sys.executable, *map(str, line)),
                env=cluster.environment | {"RAY_ADDRESS": cluster.address},
                stdout=said,
                stderr=said,
            )

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    def files(self, of: str) -> list[Path]:
        """What the run has written of a kind: `commits` or `verdicts`."""
        return list(self.output.glob(f"runs/1/{of}/*.*"))

    def holding(self) -> Machine:
        """The node where the last shard stands still, once all others are committed."""
        held = self.folder / "held"
        self.wait_until(lambda: held.exists() and len(self.files("commits")) == N_SHARDS - 1, 300)
        return self.cluster.node_at(held.read_text())

    def another(self, than: Machine) -> Machine:
        """Another node that works, one with an actor if there is one."""
        others = [node for node in self.cluster.workers if node is not than]
        return max(others, key=lambda node: len(node.processes("Stage")))

    def assert_goes_on(self) -> None:
        """The last shard is soon committed, and the command ends as if nothing had happened."""
        seconds = self.wait_until(lambda: len(self.files("commits")) == N_SHARDS, GOES_ON_S)
        print(f"the next commit was {seconds:.0f} s later")
        assert self.process.wait(60) == 0, self.said
        assert "Traceback" not in self.said

    def wait_until(self, condition: Callable[[], object], limit_s: float) -> float:
        """Returns how many seconds it took."""

        def holds() -> object:
            assert self.process.poll() in (None, 0), self.said
            return condition()

        return wait_until(holds, limit_s, lambda: self.said)


@pytest.fixture
def start_held(
    tmp_path: Path,
    demo_bundle: Bundle,
    make_images: Callable[[Path, int], Path],
    start_cluster: Callable[..., Cluster],
) -> Callable[[str], Held]:
    make_images(tmp_path / "images", N_SHARDS * SHARD_SIZE)

    def start(stage: str) -> Held:
        held = {"FFAA_TEST_HOLD": stage, "FFAA_TEST_HOLD_FOLDER": str(tmp_path)}
        return Held(start_cluster(n_workers=3, cpus=2, **held), tmp_path, demo_bundle)

    return start


@pytest.mark.parametrize("stage", ["fetch", "answer", "judge"])
def test_a_run_goes_on_soon_after_one_node_was_cut_off_and_another_killed(
    stage: str, start_held: Callable[[str], Held], ffaa: Ffaa
) -> None:
    run = start_held(stage)
    node = run.holding()
    run.cluster.cut(node)
    kill_raylet(run.another(node))
    run.assert_goes_on()
    assert_complete(ffaa, run.images, run.output)


def test_a_node_that_comes_back_and_commits_late_loses(start_held: Callable[[str], Held], ffaa: Ffaa) -> None:
    run = start_held("judge")
    node = run.holding()
    run.cluster.cut(node)
    run.assert_goes_on()
    before = commits_of(run.output)
    run.cluster.mend(node)
    (run.folder / "released").touch()
    run.wait_until(lambda: len(run.files("verdicts")) == N_SHARDS + 1, 60)
    assert commits_of(run.output) == before
    assert_complete(ffaa, run.images, run.output)
    (loser,) = {path.name for path in run.files("verdicts")} - set(before)
    cleared = ffaa("table", "gc", run.output, "--dry-run")
    assert loser in cleared.stdout + cleared.stderr


def commits_of(output: Path) -> dict[str, str]:
    """Who wrote which committed file."""
    (run,) = VerdictTable.open(str(output)).runs()
    return {Path(commit.file).name: commit.writer for commit in run.commits() if commit.file}
