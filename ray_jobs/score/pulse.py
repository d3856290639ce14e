"""Ending a process whose model hangs: Ray then starts another and repeats the shard, as for one that died."""

import faulthandler
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ffaa_core.engine.base import Crop
from ffaa_core.pipeline import FaceJudge, Logits


class Pulse:
    """Ends this process when there is work in hand and none of it is done for `limit_s` seconds.

    There is one in a process. The interpreter's own watchdog does it, which a model that never lets another
    thread run cannot stop, and which first writes to standard error where every thread stands.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._in_hand = 0
        self._lock = threading.Lock()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work is in hand in the block; blocks of several threads may overlap."""
        with self._lock:
            self._in_hand += 1
            self._wind()
        try:
            yield
        finally:
            with self._lock:
                self._in_hand -= 1
                self._wind()

    def beat(self) -> None:
        """Note that some work was done."""
        with self._lock:
            self._wind()

    def _wind(self) -> None:
        if self._in_hand:
            faulthandler.dump_traceback_later(self._limit_s, exit=True, file=sys.__stderr__ or sys.stderr)
        else:
            faulthandler.cancel_dump_traceback_later()


class BeatingJudge:
    """A judge that takes some faces at a time and beats after them, so that long work is seen to go on."""

    FACES = 16
    """At a time; as many as MIDS itself computes at once."""

    def __init__(self, judge: FaceJudge, beat: Callable[[], None]) -> None:
        self._judge, self._beat = judge, beat

    def logits(self, crops: Sequence[Crop], masked_answers: Sequence[Sequence[str]]) -> list[Logits | None]:
        """As the judge does."""
        results: list[Logits | None] = []
        for start in range(0, len(crops), self.FACES):
            some = slice(start, start + self.FACES)
            results += self._judge.logits(crops[some], masked_answers[some])
            self._beat()
        return results
