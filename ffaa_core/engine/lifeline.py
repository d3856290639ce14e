"""Ends a process of the engine when the process that started it ends, even by kill -9.

vLLM calls `hold` in every process it spawns, through the entry-point group `vllm.general_plugins`: otherwise
they live on for a while, with the model in memory, when their owner is killed.
"""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait

_THREAD_NAME = "ffaa-lifeline"


def hold() -> None:
    """Watch the parent process from a thread, if this is a child of multiprocessing. May be called again."""
    parent = multiprocessing.parent_process()
    if parent is None or any(thread.name == _THREAD_NAME for thread in threading.enumerate()):
        return
    threading.Thread(target=_die_after, args=(parent.sentinel,), name=_THREAD_NAME, daemon=True).start()


def _die_after(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
