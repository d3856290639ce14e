"""Where every shard is, how long it has been there, and whether a new one may begin."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ray_jobs.score.display import duration

Model = Literal["engine", "MIDS"]
Step = Literal["fetch", "fetched", "answer", "answered", "judge"]

IN_FLIGHT: tuple[Step, ...] = ("answer", "answered", "judge")
"""Steps of a shard that is finished before a run stops: work has gone into it that is dear to repeat."""
DESCRIBED = 8
"""Shards that a description names at most."""

NOTHING = "no shard is under way and no model loads; does the cluster have what the actors ask for?"

WORDS: dict[Step, str] = {
    "fetch": "in fetch",
    "fetched": "fetched and waiting for an engine",
    "answer": "in answer",
    "answered": "answered and waiting for MIDS",
    "judge": "in judge",
}


@dataclass(frozen=True, kw_only=True)
class Movement:
    """How much has moved since the start: compared with an earlier one it tells whether anything has.

    `waits` counts the times that a process said it waits for storage, `wait` is what the last one said.
    """

    steps: int
    in_flight: int
    waits: int = 0
    wait: str = ""


@dataclass(frozen=True)
class Stay:
    """Who or what is somewhere, in which process, since when on the clock."""

    what: str
    process: str
    since: float


class Whereabouts:
    """Kept where it outlives the stages' processes.

    Args:
        clock: seconds that only ever grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shards: dict[int, tuple[Step, Stay]] = {}
        self._loading: dict[Model, list[Stay]] = {"engine": [], "MIDS": []}
        self._steps = 0
        self._waits, self._wait = 0, ""
        self._stopping = False
        self._done: set[int] = set()

    def enter(self, shard: int, step: Step, process: str) -> bool:
        """Note that a shard has come to a step; False if it must not begin it, since the run stops or the
        shard is committed: a node that was cut off goes on with what others have done meanwhile.
        """
        if shard in self._done:
            return False
        if self._stopping and step in ("fetch", "answer") and shard not in self._in_flight():
            self._shards.pop(shard, None)
            return False
        if step in ("fetched", "answered"):
            self.move()
        self._shards[shard] = step, Stay(f"shard {shard} {WORDS[step]}", process, self._clock())
        return True

    def wait(self, line: str, process: str) -> None:
        """Note that a process waits for storage, in its words."""
        self._waits, self._wait = self._waits + 1, f"{line} ({process})"

    def leave(self, shard: int) -> None:
        """Note that a shard is committed."""
        self._done.add(shard)
        self._shards.pop(shard, None)
        self.move()

    def load(self, model: Model, process: str) -> None:
        """Note that a process begins to load its model."""
        self._loading[model].append(Stay(f"{model} loading", process, self._clock()))

    def loaded(self, model: Model, process: str) -> None:
        """Note that it has loaded it."""
        self._loading[model] = [stay for stay in self._loading[model] if stay.process != process]
        self.move()

    def move(self) -> None:
        """Note any progress that the other verbs do not tell."""
        self._steps += 1

    def stop(self) -> None:
        """From now on let no shard begin that is not in flight."""
        self._stopping = True

    def movement(self) -> Movement:
        """How much has moved, and how many shards are in flight."""
        return Movement(
            steps=self._steps, in_flight=len(self._in_flight()), waits=self._waits, wait=self._wait
        )

    def describe(self) -> str:
        """Which models load and which shards are where, for how long, longest first."""
        stays = sorted((stay for _, stay in self._shards.values()), key=lambda stay: stay.since)
        told = [self._describe_loading(loading) for loading in self._loading.values() if loading]
        told += [self._describe(stay) for stay in stays[:DESCRIBED]]
        if others := len(stays[DESCRIBED:]):
            told.append(f"{others} more")
        return "; ".join(told) or NOTHING

    def _describe_loading(self, loading: list[Stay]) -> str:
        """A process that dies over its model never says so: another one takes its turn."""
        *former, last = loading
        others = f", after {len(former)} others that began and are not done" if former else ""
        return self._describe(last) + others

    def _describe(self, stay: Stay) -> str:
        return f"{stay.what} for {duration(self._clock() - stay.since)} ({stay.process})"

    def _in_flight(self) -> set[int]:
        return {shard for shard, (step, _) in self._shards.items() if step in IN_FLIGHT}


def this_process() -> str:
    """The name of this process in a cluster."""
    import ray

    return f"process {os.getpid()} on {ray.util.get_node_ip_address()}"  # type: ignore[no-untyped-call]
