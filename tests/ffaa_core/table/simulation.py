"""A store in memory, and actors that work on it one storage call at a time; a test decides who is next.

An actor can die before or after any call, and an answer can get lost on the way back. What the store itself
promises, that a create has one winner and a write is whole, holds in every step.
"""

import contextlib
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO

from ffaa_core.errors import AlreadyExistsError, NotFoundError
from ffaa_core.storage import Content, ObjectInfo, Store

PAGE = 2


class MemoryStore(Store):
    uri = "memory:"

    def __init__(self):
        self.objects: dict[str, bytes] = {}

    def uri_of(self, key: str) -> str:
        return f"memory:{key}"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return (self.stat(key) for key in sorted(self.objects) if key.startswith(prefix))

    def folders(self, prefix: str) -> Iterator[str]:
        below = (key.removeprefix(prefix) for key in self.objects if key.startswith(prefix))
        return iter(sorted({key.partition("/")[0] for key in below if "/" in key}))

    def stat(self, key: str) -> ObjectInfo:
        content = self.read(key)
        return ObjectInfo(uri=self.uri_of(key), key=key, size=content.size, version=content.version)

    def read(self, key: str, *, limit: int | None = None) -> Content:
        if key not in self.objects:
            raise NotFoundError(f"{key} does not exist")
        data = self.objects[key]
        return Content(data=data[:limit], version=hashlib.md5(data).hexdigest(), size=len(data))

    def open(self, key: str) -> BinaryIO:
        return io.BytesIO(self.read(key).data)

    def create(self, key: str, data: bytes) -> None:
        if key in self.objects:
            raise AlreadyExistsError(f"{key} exists already")
        self.objects[key] = data

    def write(self, key: str, data: bytes | Path) -> None:
        self.objects[key] = data.read_bytes() if isinstance(data, Path) else data

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)


class Fate(Enum):
    """What becomes of an actor's next storage call."""

    GO = auto()
    DIE_BEFORE = auto()
    DIE_AFTER = auto()
    LOSE_ANSWER = auto()
    """A create happens, its answer is lost, and the store's own repetition finds the object in place."""


class DeadError(BaseException):
    """Kills an actor as a crash would: nothing of this project catches it."""


class Actor:
    """A piece of work on the store, in a thread of its own that moves only when told to."""

    def __init__(self, store: Store, body: Callable[[Store], None], *, tolerated: tuple[type, ...] = ()):
        self.finished = False
        self._fate = Fate.GO
        self._may_go, self._has_paused = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._work, args=(body, SteppedStore(store, self.pause), tolerated), daemon=True
        )
        self._thread.start()
        self._wait()

    def step(self, fate: Fate = Fate.GO) -> None:
        """Let the next storage call happen, and run on to the one after it."""
        if not self.finished:
            self._fate = fate
            self._may_go.release()
            self._wait()

    def finish(self) -> None:
        while not self.finished:
            self.step()

    def kill(self) -> None:
        """End the thread, whatever it does."""
        with contextlib.suppress(BaseException):
            while not self.finished:
                self.step(Fate.DIE_BEFORE)

    def pause(self) -> Fate:
        self._has_paused.release()
        self._may_go.acquire()
        return self._fate

    def _wait(self) -> None:
        assert self._has_paused.acquire(timeout=60), "an actor hangs"
        if self._error is not None:
            raise self._error

    def _work(self, body: Callable[[Store], None], store: Store, tolerated: tuple[type, ...]) -> None:
        try:
            body(store)
        except (DeadError, *tolerated):
            pass
        except BaseException as error:
            self._error = error
        self.finished = True
        self._has_paused.release()


class SteppedStore(Store):
    """One actor's view of the store: every call, and every page of a listing, waits for the actor's fate."""

    uri = MemoryStore.uri

    def __init__(self, store: Store, pause: Callable[[], Fate]):
        self._store, self._pause = store, pause

    def uri_of(self, key: str) -> str:
        return self._store.uri_of(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        last = ""
        while True:
            page = self._call(lambda last=last: [i for i in self._store.list(prefix) if i.key > last][:PAGE])
            yield from page
            if len(page) < PAGE:
                return
            last = page[-1].key

    def folders(self, prefix: str) -> Iterator[str]:
        return self._call(lambda: self._store.folders(prefix))

    def stat(self, key: str) -> ObjectInfo:
        return self._call(lambda: self._store.stat(key))

    def read(self, key: str, *, limit: int | None = None) -> Content:
        return self._call(lambda: self._store.read(key, limit=limit))

    def open(self, key: str) -> BinaryIO:
        return self._call(lambda: self._store.open(key))

    def create(self, key: str, data: bytes) -> None:
        fate = self._call(lambda: self._store.create(key, data), told=True)
        if fate is Fate.LOSE_ANSWER:
            raise AlreadyExistsError(f"{key} exists already")

    def write(self, key: str, data: bytes | Path) -> None:
        return self._call(lambda: self._store.write(key, data))

    def delete(self, key: str) -> None:
        self._call(lambda: self._store.delete(key))

    def _call(self, call, *, told: bool = False):
        fate = self._pause()
        if fate is Fate.DIE_BEFORE:
            raise DeadError
        result = call()
        if fate is Fate.DIE_AFTER:
            raise DeadError
        return fate if told else result
