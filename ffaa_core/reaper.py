"""A process that outlives a killed driver of Ray, ends what is left of that, and then itself.

Ray's agents notice at once that the rest of their node is gone, and then try for a minute to tell it so.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

LOOK_EVERY_MS = 1000
"""How often the processes below the driver are looked up: once it has ended nothing tells whose they were."""
GRACE_S = 5
"""How long what is left may take to end by itself."""


class _Process(NamedTuple):
    """A process, told from a later one of the same number by when it started."""

    number: int
    started: str


@contextmanager
def reaped() -> Iterator[None]:
    """Whatever this process starts in the block ends soon after it, also after kill -9."""
    reaper = subprocess.Popen(
        [sys.executable, "-m", __name__, str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        reaper.kill()
        reaper.wait()


def kill_below() -> None:
    """Kill all that this process started, and what that started."""
    for process in _below(os.getpid()):
        with suppress(OSError):
            os.kill(process.number, signal.SIGKILL)


def main() -> None:
    """Argument: the driver's pid."""
    driver = int(sys.argv[1])
    ended = select.poll()
    ended.register(os.pidfd_open(driver), select.POLLIN)
    left: set[_Process] = set()
    while not ended.poll(LOOK_EVERY_MS):
        left = _below(driver)
    time.sleep(GRACE_S)
    for process in left & set(_parents()):
        with suppress(OSError):
            os.kill(process.number, signal.SIGKILL)


def _below(driver: int) -> set[_Process]:
    children = defaultdict(list)
    for process, parent in _parents().items():
        children[parent].append(process)
    below = list(children[driver])
    for process in below:  # grows meanwhile
        below += children[process.number]
    return {process for process in below if process.number != os.getpid()}


def _parents() -> dict[_Process, int]:
    """Every process there is, and the number of the one that started it."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[_Process(int(folder.name), fields[19])] = int(fields[1])
    return parents


if __name__ == "__main__":
    main()
