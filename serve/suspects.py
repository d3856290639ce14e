"""Images that were at the engine when it died: they are not put to it together, and again and again."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

REMEMBERED_S = 3600.0
REMEMBERED = 10_000
"""Images that are remembered at most; the oldest are forgotten."""


class Suspects:
    """What one gateway knows of images, by their digests, during which the engine died.

    An image is suspect from then until it is answered. A suspect goes to the engine only in its `turn`, so
    that no two are blamed for one death; if the engine dies again it is convicted, though what was at the
    engine beside it, unsuspected, may have been the cause. Either is forgotten after `REMEMBERED_S` seconds.

    Args:
        clock: seconds that only ever grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.turn = asyncio.Lock()
        self._clock = clock
        self._known: OrderedDict[str | None, tuple[float, bool]] = OrderedDict()

    def suspect(self, image: str | None) -> None:
        """Note that the engine died while it had the image among others."""
        self._note(image, convicted=False)

    def convict(self, image: str | None) -> None:
        """Note that the engine died of it, as far as can be told."""
        self._note(image, convicted=True)

    def acquit(self, image: str | None) -> None:
        """Note that the image was answered."""
        self._known.pop(image, None)

    def __contains__(self, image: str | None) -> bool:
        self._forget()
        return image in self._known

    def is_convicted(self, image: str | None) -> bool:
        """Whether the engine is spared it."""
        self._forget()
        return self._known.get(image, (0.0, False))[1]

    def _note(self, image: str | None, *, convicted: bool) -> None:
        if image is not None:
            self._known.pop(image, None)
            self._known[image] = (self._clock() + REMEMBERED_S, convicted)
            self._forget()

    def _forget(self) -> None:
        while self._known:
            oldest = next(iter(self._known))
            if self._known[oldest][0] > self._clock() and len(self._known) <= REMEMBERED:
                return
            del self._known[oldest]
