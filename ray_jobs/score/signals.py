"""SIGTERM and SIGINT: at once where nothing is lost by it, with patience while shards are in flight."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ffaa_core.errors import JobError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME_S = 1.0
"""Signals this close together are one request: `ray job stop` sends its own to every process of a command,
and one of them passes it on.
"""


class StopRequest:
    """Whether a signal asked this process to stop. A second one raises JobError wherever it is by then."""

    def __init__(self, *, patient: bool) -> None:
        self.received: str | None = None
        self._patient = patient
        self._received_at = -SAME_S
        self._raised = False

    def receive(self, number: int, _: FrameType | None) -> None:
        """Handle a signal."""
        now = time.monotonic()
        if now - self._received_at < SAME_S:
            return
        self._received_at = now
        if self._raised:  # whoever sends yet another means it
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        first, self.received = self.received is None, signal.Signals(number).name
        if first and self._patient:
            return
        self._raised = True
        raise stopped(self.received)


@contextmanager
def stop_requests(*, patient: bool) -> Iterator[StopRequest]:
    """Handle SIGTERM and SIGINT in the block.

    Args:
        patient: the first signal is only noted in the request; otherwise it raises JobError at once.
    """
    request = StopRequest(patient=patient)
    in_main_thread = threading.current_thread() is threading.main_thread()
    former = {number: signal.getsignal(number) for number in SIGNALS if in_main_thread}
    for number in former:
        signal.signal(number, request.receive)
    try:
        yield request
    except SystemExit as error:  # Ray takes SIGTERM over while it starts and ends, and exits so
        raise stopped("SIGTERM") from error
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def stopped(name: str) -> JobError:
    """The error that ends a command on a signal of this name."""
    return JobError(f"stopped by {name}; the same command goes on where this one stopped")
