"""The images scored lately, which conversations refer to: bounded, expiring, and each its owner's alone."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ffaa_core.pipeline import Crop
from ffaa_core.verdict import ImageVerdict, Status
from serve.config import ServiceSettings
from serve.listening import listen_to_the_cluster
from serve.metrics import MemoryMetrics


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What is known of an image: the verdict on it, and the crops of its faces, in their order."""

    verdict: ImageVerdict
    crops: tuple[Crop, ...]

    @property
    def bytes(self) -> int:
        """What it takes, without the words, which are few."""
        return sum(crop.nbytes for crop in self.crops)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    owner: str
    image: Remembered
    expires: float


class Memory:
    """One for the whole service. Whatever exceeds a bound makes it forget the oldest images.

    Its methods are coroutines so that one runs after the other: of plain ones Ray Serve runs several at once,
    in threads.

    Args:
        settings: how many images, how many bytes of them, and how long.
        clock: seconds that only ever grow.
    """

    def __init__(self, settings: ServiceSettings, clock: Callable[[], float] = time.monotonic) -> None:
        listen_to_the_cluster()
        self._settings, self._clock = settings, clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._metrics = MemoryMetrics()

    async def remember(self, owner: str, verdict: ImageVerdict, crops: Sequence[Crop]) -> str:
        """Keep an image; returns the id by which `owner` can have it back."""
        image_id = secrets.token_hex(16)
        # Copied: on a cluster what comes with a call lies in Ray's object store, which is not to be filled.
        image = Remembered(verdict=verdict, crops=tuple(crop.copy() for crop in crops))
        expires = self._clock() + self._settings.memory_seconds
        self._entries[image_id] = _Entry(owner=owner, image=image, expires=expires)
        self._bytes += image.bytes
        self._forget()
        return image_id

    async def recall(self, owner: str, image_id: str) -> Remembered | None:
        """The image; None if it is not known (any more) or another's."""
        self._forget()
        entry = self._entries.get(image_id)
        return entry.image if entry and entry.owner == owner else None

    async def known(self, owner: str, image_sha256: str) -> str | None:
        """The id of a scored image of this owner by its file's digest; None if none is kept."""
        self._forget()
        return next(
            (
                image_id
                for image_id, entry in reversed(self._entries.items())
                if entry.owner == owner
                and entry.image.verdict.image_sha256 == image_sha256
                and entry.image.verdict.status is Status.SCORED
            ),
            None,
        )

    def _forget(self) -> None:
        """Forget what has expired and what exceeds a bound."""
        now = self._clock()
        while self._entries:
            oldest = next(iter(self._entries))
            entry = self._entries[oldest]
            if entry.expires > now and not self._is_full():
                return
            self._bytes -= entry.image.bytes
            del self._entries[oldest]

    async def check_health(self) -> None:
        """Called by Ray Serve every few seconds, and so the time to forget also where nobody asks."""
        self._forget()
        self._metrics.now(len(self._entries))

    async def size(self) -> tuple[int, int]:
        """The number of images kept, and the bytes they take."""
        return len(self._entries), self._bytes

    def _is_full(self) -> bool:
        return (
            len(self._entries) > self._settings.memory_images
            or self._bytes > self._settings.memory_mib * 2**20
        )
