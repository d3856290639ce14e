"""The command's work in a process below it, since Ray may end that one without a word and with any exit code.

So Ray does with a driver whose node's raylet is gone, or its head.
"""

import atexit
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from ffaa_core.engine.lifeline import tie_to
from ffaa_core.errors import JobError
from ray_jobs.score.signals import SIGNALS, stopped

SHOW_CURSOR = "\x1b[?25h"
"""The live bar hides it."""


def supervised() -> int | None:
    """Go on in two processes: None in the new one, which does the work; in this one, later, its exit code.

    The new one gets the signals that this one gets, and ends when this one does, also by kill -9. To be
    called before any thread is started.

    Raises:
        JobError: the new one did not end by itself.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    owner = os.getpid()
    farewell, said_farewell = os.pipe()
    worker = os.fork()
    if worker:
        os.close(said_farewell)
        return _await(worker, farewell)
    os.close(farewell)
    os.setpgid(0, 0)  # Ctrl-C and whatever else a whole group is sent is for the one above
    atexit.register(os.write, said_farewell, b"\n")
    tie_to(owner)
    return None


def _await(worker: int, farewell: int) -> int:
    received: list[signal.Signals] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        received.append(signal.Signals(number))
        with suppress(ProcessLookupError):
            os.kill(worker, number)

    for number in SIGNALS:
        signal.signal(number, pass_on)
    _, status = os.waitpid(worker, 0)
    code = os.waitstatus_to_exitcode(status)
    os.set_blocking(farewell, False)
    with suppress(BlockingIOError):
        if os.read(farewell, 1) and code >= 0:
            return code
    if code == JobError.exit_code:
        return code
    if sys.stderr.isatty():
        sys.stderr.write(SHOW_CURSOR)
    if received:
        raise stopped(received[0].name)
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended by a library with code {code}"
    raise JobError(
        f"the process of the run was {how}: did its machine run out of memory, or Ray die on it? What is "
        "committed stays, and the same command goes on from there"
    )
