"""Ending a run early: on a signal, once the shards in flight are done, or when nothing moves any more."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ffaa_core.errors import JobError
from ray_jobs.score.config import RunSettings
from ray_jobs.score.display import duration
from ray_jobs.score.signals import StopRequest, stopped
from ray_jobs.score.whereabouts import Movement

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from ray_jobs.score.progress import Progress

T = TypeVar("T")

INTERVAL_S = 0.5
ANSWER_S = 5
"""How long the progress actor, which does next to nothing, may take to answer."""
QUIET_S = 60
"""Time after which it is told again that a process waits for storage, however many of them do."""


class Watch:
    """Looks after one run; `check` is called every now and then.

    Args:
        tell: shows the user a line.
    """

    def __init__(
        self,
        progress: "ActorHandle[Progress]",
        request: StopRequest,
        settings: RunSettings,
        tell: Callable[[str], None],
    ) -> None:
        self._progress, self._request, self._settings, self._tell = progress, request, settings, tell
        self._steps = 0
        self._moved_at = time.monotonic()
        self._stops_at: float | None = None
        self._waits, self._quiet_until = 0, 0.0

    def check(self) -> None:
        """Raise JobError if the run must end now."""
        if self._request.received:
            self._stop(self._request.received)
            return
        movement = self._movement()
        now = time.monotonic()
        if movement and movement.steps != self._steps:
            self._steps, self._moved_at = movement.steps, now
        if now - self._moved_at > self._settings.stall_minutes * 60:
            raise JobError(
                f"no progress for {duration(now - self._moved_at)}: {self._describe()}. What is committed "
                "stays, and the same command goes on from there"
            )

    def _stop(self, name: str) -> None:
        if self._stops_at is None:
            self._stops_at = time.monotonic() + self._settings.grace_seconds
            self._tell(
                f"{name}: no new shards; those in flight may finish within "
                f"{duration(self._settings.grace_seconds)}, or send it again to stop at once"
            )
        self._progress.stop.remote()
        movement = self._movement()
        if movement and not movement.in_flight:
            raise stopped(name)
        if time.monotonic() > self._stops_at:
            raise JobError(
                f"stopped by {name}; not finished in time: {self._describe()}. The same command does it again"
            )

    def _movement(self) -> Movement | None:
        """None if there is no answer."""
        import ray

        try:
            movement: Movement = ray.get(self._progress.movement.remote(), timeout=ANSWER_S)  # type: ignore[assignment]
        except ray.exceptions.RayError:
            return None
        self._tell_of_waiting(movement)
        return movement

    def _tell_of_waiting(self, movement: Movement) -> None:
        now = time.monotonic()
        if movement.waits > self._waits and now >= self._quiet_until:
            self._tell(movement.wait)
            self._quiet_until = now + QUIET_S
        self._waits = movement.waits

    def _describe(self) -> str:
        import ray

        try:
            return str(ray.get(self._progress.describe.remote(), timeout=ANSWER_S))
        except ray.exceptions.RayError as error:
            return f"the actor that knows where the shards are does not answer ({type(error).__name__})"


@dataclass(frozen=True)
class _End:
    """What comes after the last item: the error that ended them, if one did."""

    error: BaseException | None


def watched(items: Iterator[T], check: Callable[[], None]) -> Iterator[T]:
    """The items, made in a thread of their own, while `check` is called here every `INTERVAL_S`.

    So the caller's thread never waits for anything but time, and whatever `check` raises ends it.
    """
    arrived: queue.Queue[T | _End] = queue.Queue()

    def make() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                arrived.put(item)
        except BaseException as raised:
            error = raised
        arrived.put(_End(error))

    threading.Thread(target=make, name="stages", daemon=True).start()
    check_at = time.monotonic() + INTERVAL_S
    while True:
        if (left := check_at - time.monotonic()) <= 0:
            check()
            check_at = time.monotonic() + INTERVAL_S
            continue
        try:
            item = arrived.get(timeout=left)
        except queue.Empty:
            continue
        if not isinstance(item, _End):
            yield item
        elif item.error:
            raise item.error
        else:
            return
