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

WORDS: dict[Step, str] = {
    "fetch": "in fetch",
    "fetched": "fetched and waiting for an engine",
    "answer": "in answer",
    "answered": "answered and waiting for MIDS",
    "judge": "in judge",
}


@dataclass(frozen=True, kw_only=True)
class Movement:
    """How much has moved since the start: compared with an earlier one it tells whether anything has."""

    steps: int
    in_flight: int


@dataclass(frozen=True)
class Stay:
    """Who or what is somewhere, in which process, since when on the clock."""

    what: str
    process: str
    since: float


class Whereabouts:
    """Kept where it outlives the stages' processes. Nothing that a dying process repeats counts as movement.

    Args:
        clock: seconds that only ever grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shards: dict[int, tuple[Step, Stay]] = {}
        self._loading: dict[tuple[Model, str], Stay] = {}
        self._steps = 0
        self._stopping = False

    def enter(self, shard: int, step: Step, process: str) -> bool:
        """Note that a shard has come to a step; False if it must not begin it, since the run stops."""
        if self._stopping and step in ("fetch", "answer") and shard not in self._in_flight():
            self._shards.pop(shard, None)
            return False
        if step in ("fetched", "answered"):
            self.move()
        self._shards[shard] = step, Stay(f"shard {shard} {WORDS[step]}", process, self._clock())
        return True

    def leave(self, shard: int) -> None:
        """Note that a shard is committed."""
        self._shards.pop(shard, None)
        self.move()

    def load(self, model: Model, process: str) -> None:
        """Note that a process begins to load its model."""
        self._loading[model, process] = Stay(f"{model} loading", process, self._clock())

    def loaded(self, model: Model, process: str) -> None:
        """Note that it has loaded it."""
        self._loading.pop((model, process), None)
        self.move()

    def move(self) -> None:
        """Note any progress that the other verbs do not tell."""
        self._steps += 1

    def stop(self) -> None:
        """From now on let no shard begin that is not in flight."""
        self._stopping = True

    def movement(self) -> Movement:
        """How much has moved, and how many shards are in flight."""
        return Movement(steps=self._steps, in_flight=len(self._in_flight()))

    def describe(self) -> str:
        """What is where for how long, longest first."""
        stays = [stay for _, stay in self._shards.values()] + list(self._loading.values())
        stays.sort(key=lambda stay: stay.since)
        told = [
            f"{stay.what} for {duration(self._clock() - stay.since)} ({stay.process})"
            for stay in stays[:DESCRIBED]
        ]
        if others := len(stays) - len(told):
            told.append(f"{others} more")
        return "; ".join(told) or "no shard has begun, and no model loads"

    def _in_flight(self) -> set[int]:
        return {shard for shard, (step, _) in self._shards.items() if step in IN_FLIGHT}


def this_process() -> str:
    """The name of this process in a cluster."""
    import ray

    return f"process {os.getpid()} on {ray.util.get_node_ip_address()}"  # type: ignore[no-untyped-call]
