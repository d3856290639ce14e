"""The process in which `ffaa_core.examiner` has images examined. It imports no Ray, torch or vLLM."""

import os
import resource
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ffaa_core.engine.lifeline import tie_to
from ffaa_core.examiner import OUT_OF_MEMORY
from ffaa_core.faces import detector
from ffaa_core.pipeline import PendingImage, examine
from ffaa_core.settings import ScoringSettings


def main() -> None:
    """Examine what comes through the socket until it is closed. Arguments: the socket, its owner's pid."""
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    tie_to(int(sys.argv[2]))
    settings, seconds, mib = connection.recv()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if settings.faces.mode != "whole_image":
        detector()  # loaded now, it takes none of the first image's time
    most = _allocated() + mib * 2**20 // 2
    connection.send(True)
    try:
        with suppress(EOFError, OSError):  # the owner has closed its end
            while True:
                pending = _examine(connection.recv_bytes(), settings, seconds, mib)
                worn = _allocated() > most  # by leaks or fragments; the owner then starts another
                connection.send((pending, worn))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


def _examine(data: bytes, settings: ScoringSettings, seconds: float, mib: int) -> PendingImage:
    """Examine an image within its bounds.

    The alarm is the kernel's: it ends the process also where C code never comes back to Python. RLIMIT_DATA
    counts what is allocated; RLIMIT_AS would count libraries and reserved addresses too, which differ from
    machine to machine. What former images left behind is not taken from this one's share.
    """
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _allocated() + mib * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit if most < 0 else min(limit, most), most))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    pending = examine(data, settings)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return pending


def _allocated() -> int:
    """Bytes that the kernel counts against RLIMIT_DATA."""
    pages = Path("/proc/self/statm").read_text().split()[5]
    return int(pages) * resource.getpagesize()
