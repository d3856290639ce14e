"""What a store is: objects under opaque keys, and the verbs the table and the job need of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from ffaa_core.errors import AlreadyExistsError, NotFoundError


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One object as it was listed: `size` in bytes, `version` changes whenever the content does."""

    uri: str
    key: str
    size: int
    version: str


@dataclass(frozen=True, kw_only=True)
class Content:
    """What was read of an object: its bytes, their version, and the size of the whole object."""

    data: bytes
    version: str
    size: int


class Store(ABC):
    """Objects below one root. Keys are relative to it, separated by `/`, and otherwise opaque.

    Every verb raises `NotFoundError` for a missing object, `ConfigurationError` for a wrong endpoint, bucket
    or credential, and `StorageError` once its bounded retries are used up. What a verb has written is durable
    when it returns. A store can be pickled; it opens its own connection wherever it arrives.
    """

    uri: str
    """Root of the store."""

    @abstractmethod
    def uri_of(self, key: str) -> str:
        """The URI under which rows and messages name the object; `locate` finds it again."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key begins with `prefix`, sorted by the key's bytes, fetched in pages."""

    @abstractmethod
    def folders(self, prefix: str) -> Iterator[str]:
        """Names directly below `prefix`, which ends in `/` or is empty, that have objects below them."""

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo:
        """Size and version of one object."""

    @abstractmethod
    def read(self, key: str, *, limit: int | None = None) -> Content:
        """The object's bytes, at most the first `limit`, with the version these bytes have."""

    @abstractmethod
    def open(self, key: str) -> BufferedReader:
        """A seekable reader that fetches only what is read of the object."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> None:
        """Create the object, whole, unless there is one.

        Raises:
            AlreadyExistsError: there is one. It may be this very call's own, when an answer got lost and the
                call was repeated: whoever must know reads it.
        """

    @abstractmethod
    def write(self, key: str, data: bytes | Path) -> None:
        """Write an object under a key that nobody else writes, from memory or from a local file."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete the object; that there is none is no error."""

    def exists(self, key: str) -> bool:
        """Whether there is an object under `key`."""
        try:
            self.stat(key)
        except NotFoundError:
            return False
        return True

    def read_many(self, keys: Iterable[str]) -> Iterator[bytes]:
        """The bytes of several small objects, in order."""
        return (self.read(key).data for key in keys)

    def create_missing(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Create each of several small objects, in any order, unless there is one under its key."""
        for key, data in objects:
            with suppress(AlreadyExistsError):
                self.create(key, data)
