"""Ends a process when the one that started it ends, even by kill -9.

vLLM's own processes notice it late or, while they start, not for five minutes, and keep the model in memory.
"""

import os
import select
import signal
import threading

_tied_to: set[int] = set()


class Lifeline(str):
    """A value in vLLM's configuration. To unpickle it in another process ties that process to the one before.

    vLLM passes its configuration on, pickled, to every process it starts, and each of them to the next.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[object, ...]:
        return _tie, (os.getpid(), str(self))


def _tie(owner: int, value: str) -> Lifeline:
    tie_to(owner)
    return Lifeline(value)


def tie_to(owner: int) -> None:
    """End this process when `owner`, another one, ends."""
    if owner != os.getpid() and owner not in _tied_to:
        _tied_to.add(owner)
        threading.Thread(target=_die_with, args=(owner,), name="lifeline", daemon=True).start()


def _die_with(owner: int) -> None:
    try:
        descriptor = os.pidfd_open(owner)
    except ProcessLookupError:
        pass
    else:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        ended.poll()
    os.kill(os.getpid(), signal.SIGKILL)
