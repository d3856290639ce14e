"""A folder of the local disk as a store: durable when a verb returns, atomic whatever dies."""

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from urllib.parse import quote_from_bytes

from ffaa_core.errors import AlreadyExistsError, ConfigurationError, FFAAError, NotFoundError, StorageError
from ffaa_core.storage.base import Content, ObjectInfo, Store

TEMPORARY = ".ffaa-tmp-"
"""Begins the names of files being written; they are no objects yet and are never listed."""

HINTS = {
    errno.ENOSPC: "the disk is full: free some space and start the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and start the same command again",
    errno.EROFS: "the file system is mounted read-only",
    errno.EACCES: "the permissions of the file or of a folder above it do not allow it",
}
MISCONFIGURED = (errno.EROFS, errno.EACCES, errno.ENOTDIR)
"""Why a write or deletion fails that trying again would not help."""
NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.ENOSYS)


class LocalStore(Store):
    """The files below `root`. Keys hold undecodable name bytes as surrogates, as `os.fsdecode` does."""

    def __init__(self, root: str | Path) -> None:
        self._root = os.path.abspath(root)
        self.uri = local_uri(self._root)

    def __reduce__(self) -> tuple[type["LocalStore"], tuple[str]]:
        return LocalStore, (self._root,)

    def __repr__(self) -> str:
        return f"LocalStore({self.uri!r})"

    def uri_of(self, key: str) -> str:
        return local_uri(self._path(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder, _, _ = prefix.rpartition("/")
        below = f"{folder}/" if folder else ""
        try:
            for key, path in _walk(self._path(folder), below, prefix, ancestors=()):
                with contextlib.suppress(FileNotFoundError):  # deleted since its folder was read
                    yield self._info(key, path)
        except OSError as error:
            raise _failure("list", error.filename or self._path(folder), error) from error

    def folders(self, prefix: str) -> Iterator[str]:
        try:
            names = sorted(entry.name for entry in os.scandir(self._path(prefix)) if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _failure("list", self._path(prefix), error) from error
        yield from names

    def stat(self, key: str) -> ObjectInfo:
        try:
            return self._info(key, self._path(key))
        except OSError as error:
            raise _failure("read", self._path(key), error) from error

    def read(self, key: str, *, limit: int | None = None) -> Content:
        path = self._path(key)
        try:
            with _open_regular(path) as file:
                before = os.fstat(file.fileno())
                data = file.read(-1 if limit is None else limit)
                after = os.fstat(file.fileno())
        except OSError as error:
            raise _failure("read", path, error) from error
        if _version(before) != _version(after):
            raise StorageError(f"{local_uri(path)} changed while it was being read; read it again")
        return Content(data=data, version=_version(after), size=after.st_size)

    def open(self, key: str) -> BufferedReader:
        path = self._path(key)
        try:
            return _open_regular(path)
        except OSError as error:
            raise _failure("read", path, error) from error

    def create(self, key: str, data: bytes) -> None:
        path = self._path(key)
        try:
            with self._temporary(path, data) as temporary:
                os.link(temporary, path)
        except FileExistsError:
            raise AlreadyExistsError(f"{local_uri(path)} exists already") from None
        except OSError as error:
            if error.errno in NO_HARD_LINKS:
                raise ConfigurationError(
                    f"cannot create {local_uri(path)}: its file system has no hard links, which decide "
                    "between racing writers; use another disk or S3"
                ) from error
            raise _failure("create", path, error) from error

    def write(self, key: str, data: bytes | Path) -> None:
        path = self._path(key)
        try:
            with self._temporary(path, data) as temporary:
                os.replace(temporary, path)
        except OSError as error:
            raise _failure("write", path, error) from error

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(path)
                _sync_folder(os.path.dirname(path))
        except OSError as error:
            raise _failure("delete", path, error) from error

    @contextlib.contextmanager
    def _temporary(self, path: str, data: bytes | Path) -> Iterator[str]:
        """A durable file beside `path` with its content-to-be; the name the block gives it is durable too."""
        folder = os.path.dirname(path)
        _make_folders(folder)
        temporary = os.path.join(folder, f"{TEMPORARY}{uuid.uuid4().hex}")
        try:
            with open(temporary, "xb") as file:
                if isinstance(data, Path):
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
                else:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        _sync_folder(folder)

    def _path(self, key: str) -> str:
        return os.path.join(self._root, key)

    def _info(self, key: str, path: str) -> ObjectInfo:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            status = os.lstat(path)  # a dangling link is listed; reading it says that it is gone
        if stat.S_ISDIR(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "it is a folder", path)
        return ObjectInfo(uri=local_uri(path), key=key, size=status.st_size, version=_version(status))


def local_uri(path: str) -> str:
    """The absolute path itself, or `file://` and its percent-encoded bytes where these are not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(path))
    return path


def _walk(folder: str, below: str, prefix: str, ancestors: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(key, path) of every file below `folder`, in the order of the keys' bytes, past loops of links."""
    real = os.path.realpath(folder)
    if real in ancestors:
        return
    try:
        with os.scandir(folder) as entries:
            names = [entry.name + ("/" if entry.is_dir() else "") for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in sorted(names, key=os.fsencode):
        key = below + name
        if name.endswith("/"):
            if key.startswith(prefix):
                yield from _walk(os.path.join(folder, name[:-1]), key, prefix, (*ancestors, real))
        elif key.startswith(prefix) and not name.startswith(TEMPORARY):
            yield key, os.path.join(folder, name)


def _open_regular(path: str) -> BufferedReader:
    """Open a file without ever waiting for one: a pipe or device among the inputs is refused."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    mode = os.fstat(file.fileno()).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    return file


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}"


def _make_folders(folder: str) -> None:
    """`os.makedirs` whose new folders survive a power cut."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    _make_folders(parent)
    try:
        os.mkdir(folder)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder", folder) from None
    _sync_folder(parent)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failure(verb: str, path: str, error: OSError) -> FFAAError:
    writing = verb in ("create", "write", "delete")
    if isinstance(error, FileNotFoundError | NotADirectoryError) and not writing:
        return NotFoundError(f"{local_uri(path)} does not exist")
    hint = HINTS.get(error.errno or 0)
    reason = (error.strerror or str(error)) + (f": {hint}" if hint else "")
    kind = ConfigurationError if writing and error.errno in MISCONFIGURED else StorageError
    return kind(f"cannot {verb} {local_uri(path)}: {reason}")
