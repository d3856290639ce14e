"""Killing parts of a run at random moments, and starting it again until it ends complete."""

import os
import random
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from ffaa_core.rows import from_row
from ffaa_core.storage import Store, open_store
from ffaa_core.table import VerdictTable
from ffaa_core.verdict import ImageVerdict
from tests.fixtures.ceph import Ceph
from tests.fixtures.command import Ffaa

Target = Callable[[Sequence[str]], bool]

TARGETS: dict[str, Target] = {
    "fetch": lambda line: line[0].startswith("ray::") and "fetch_crop" in line[0],
    "answer": lambda line: line[0].startswith("ray::") and "AnswerStage" in line[0],
    "judge": lambda line: line[0].startswith("ray::") and "JudgeStage" in line[0],
    "engine": lambda line: line[0].startswith("VLLM::EngineCore"),
    "progress": lambda line: line[0].startswith("ray::Progress"),
    "raylet": lambda line: line[0].endswith("/raylet"),
    "gcs": lambda line: line[0].endswith("/gcs_server"),
}
"""What of Ray and its workers can be killed, each told by its command line."""
COMMAND, GATEWAY = "command", "radosgw"
"""The process that was started, and the S3 server. `driver` is the one below it that does the work."""

STAGE_OF = {"answer": "answer", "engine": "answer", "judge": "judge"}
KILLS_A_STAGE_TAKES = 3
"""Kills of a stage within one life of the command: by the fourth a face may rightly be held guilty."""
OUTAGE_S = 5
MOVES_WITHIN_S = 300
"""How soon a command must have committed a shard, ended, or started what is to be killed."""
GONE_S = 30
"""How soon nothing may be left of a command."""
NOISE = ("Traceback", "(raylet)", "pid=", "INFO", "core dumped")


def seed_of_today() -> int:
    """$FFAA_TEST_SEED, else another one each time."""
    return int(os.environ.get("FFAA_TEST_SEED") or random.SystemRandom().randrange(10**6))


@dataclass(frozen=True)
class Kill:
    """What was killed, in which life of the command, when in it, and how many shards were committed."""

    what: str
    life: int
    second: float
    committed: int

    def __str__(self) -> str:
        return f"{self.what} (life {self.life}, {self.second:.1f} s, {self.committed} shards)"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds that a command takes at least until its first commit, and from one to the next; and how many
    shards it may commit at once, when a stage that was killed is there again.
    """

    start_s: float
    shard_s: float
    at_once: int


class Life:
    """One process of the command, from its start to its end."""

    def __init__(self, number: int, process: "subprocess.Popen[bytes]", said: Path, began_with: int) -> None:
        self.number, self.process, self.began_with = number, process, began_with
        self.killed: list[str] = []
        self._said = said
        self._started = time.monotonic()

    @property
    def said(self) -> str:
        return self._said.read_text()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self, what: str) -> bool:
        """Kill a process of this kind; False if there is none."""
        try:
            command = psutil.Process(self.process.pid)
            is_it = TARGETS.get(what) or _line(command).__eq__
            found = [command] if what == COMMAND else command.children(recursive=True)
            next(process for process in found if what == COMMAND or is_it(_line(process))).kill()
        except (psutil.NoSuchProcess, StopIteration):
            return False
        return True

    def may_lose(self, what: str) -> bool:
        """Whether killing this cannot rightly cost a face."""
        stage = STAGE_OF.get(what)
        return not stage or [STAGE_OF.get(k) for k in self.killed].count(stage) < KILLS_A_STAGE_TAKES


class Campaign:
    """One job, killed again and again and started again, until it ends with 0.

    Args:
        command: what is started, the same every time.
        output: OUTPUT of it, on S3.
        folder: where it is kept what each life said.
    """

    def __init__(
        self,
        ffaa: Ffaa,
        command: Sequence[str | Path],
        output: str,
        ceph: Ceph,
        folder: Path,
        *,
        seed: int,
        n_shards: int,
        pace: Pace,
    ) -> None:
        self._ffaa, self._command, self._ceph, self._folder = ffaa, command, ceph, folder
        self._output: Store = open_store(output)
        self._random = random.Random(seed)
        self._n_shards, self._pace = n_shards, pace
        self._committed: set[str] = set()
        self._lives = 0
        self.kills: list[Kill] = []

    def run(self, kinds: Sequence[str]) -> None:
        """Kill each of `kinds` once, in any order, at moments spread over the whole run; then let it end.

        The command is killed, too, where what is left to be killed comes only with a new start.
        """
        self._moments = sorted(self._random.randrange(self._n_shards - self._pace.at_once) for _ in kinds)
        self._left = list(kinds)
        try:
            while self._live() != 0:
                if self._random.random() < 0.5:
                    self._ffaa.await_no_process(GONE_S)
            self._ffaa.await_no_process(GONE_S)
        finally:
            for process in self._ffaa.processes():
                process.kill()
        assert not self._left, f"the run was over before {self._left} could be killed: {self.told()}"

    def told(self) -> str:
        return "; ".join(map(str, self.kills))

    def _live(self) -> int:
        """Start the command, and kill what is left to be killed until the command ends; its exit code."""
        self._lives += 1
        said = self._folder / f"life-{self._lives}"
        process = self._ffaa.start(*self._command, said=said)
        life = Life(self._lives, process, said, began_with=len(self._committed))
        while self._left and self._await_moment(life, self._moments[-len(self._left)]):
            self._strike(life)
        code = self._await_end(life)
        assert code in ({0, 75, -9} if COMMAND in life.killed else {0, 75}), self._case(life, code)
        assert not any(noise in life.said for noise in NOISE), self._case(life, code)
        return code

    def _await_moment(self, life: Life, n_committed: int) -> bool:
        """Wait until so many shards are committed and for a while more; False if the command ends before."""
        begins = not life.killed and self._count_commits() >= n_committed
        self._wait(life, lambda: self._count_commits() >= n_committed)
        end = life.seconds + self._random.uniform(0, self._pace.start_s if begins else self._pace.shard_s)
        while not life.ended and life.seconds < end:
            time.sleep(0.05)
        return not life.ended

    def _strike(self, life: Life) -> None:
        """Kill one of what is left as soon as one is alive; the command, if only its successor has one."""
        self._wait(life, lambda: any(self._kill(life, what) for what in self._choices(life)))

    def _choices(self, life: Life) -> list[str]:
        """What may be killed now, in any order; the command only if nothing is left that is still to come."""
        able = [what for what in self._left if life.may_lose(what)]
        self._random.shuffle(able)
        worked = len(self._committed) > life.began_with
        comes = any(not worked or what in life.killed for what in able)
        return able if comes else [*able, COMMAND]

    def _kill(self, life: Life, what: str) -> bool:
        """Kill it if it is alive."""
        second = life.seconds
        if what == GATEWAY:
            with self._ceph.outage():
                time.sleep(self._random.uniform(0.5, OUTAGE_S))
        elif not life.kill(what):
            return False
        life.killed.append(what)
        if what in self._left:
            self._left.remove(what)
        self.kills.append(Kill(what, life.number, second, len(self._committed)))
        print(f"killed {self.kills[-1]}", flush=True)
        return True

    def _await_end(self, life: Life) -> int:
        self._wait(life, lambda: False)
        code = life.process.wait()
        self._count_commits()
        print(f"life {life.number} ended with {code} after {life.seconds:.1f} s", flush=True)
        return code

    def _wait(self, life: Life, condition: Callable[[], bool]) -> None:
        """Until the condition holds or the command ends; it must not stand still meanwhile."""
        moved, before = time.monotonic(), -1
        while not life.ended and not condition():
            if (committed := self._count_commits()) != before:
                moved, before = time.monotonic(), committed
            assert time.monotonic() - moved < MOVES_WITHIN_S, f"it stands still: {self._case(life, None)}"
            time.sleep(0.2)

    def _count_commits(self) -> int:
        """How many shards are committed; what once was stays, as it was."""
        found = {info.key: info.version for info in self._output.list("runs/1/commits/")}
        now = {f"{key} {version}" for key, version in found.items()}
        assert self._committed <= now, f"commits were lost or changed: {self._committed - now}"
        self._committed = now
        return len(now)

    def _case(self, life: Life, code: int | None) -> str:
        return f"life {life.number} ended with {code} after {self.told()}; it said: {life.said}"


def verdicts(output: str) -> dict[str, ImageVerdict]:
    """What a table says of each image, by its name; no image has two rows."""
    found = {}
    for batch in VerdictTable.open(output).rows():
        for row in batch.to_pylist():
            name = row["image_uri"].rpartition("/")[2]
            assert name not in found, f"{name} has two rows"
            found[name] = from_row(row)
    return found


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() or [""]
    except psutil.Error:
        return [""]
