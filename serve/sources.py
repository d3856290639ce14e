"""Images by address: which addresses may be read, and reading them.

Only objects on S3 below a configured prefix, read by the project's own store: it never follows a redirect,
and what it asks is the one endpoint that the operator configured. An address is taken literally, as the key
it names; what some server on the way might take for another key is refused.
"""

import asyncio
import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

from ffaa_core.errors import ConfigurationError, NotFoundError, StorageError
from ffaa_core.printable import printable
from ffaa_core.storage.patience import PATIENCE, tell_waits_to
from serve.limits import image_too_large
from serve.problems import ProblemError

LONGEST = 2048
"""Characters of an address; S3's keys have at most 1024 bytes."""
READERS = 8
"""Images read at once by one gateway."""
LONGEST_KIND = 100
"""Characters that are logged of why storage failed."""
PATIENCE_S = 20
"""Seconds for which failing storage is tried again, unless the environment says otherwise; then the client is
told to try again. The batch is more patient."""

log = logging.getLogger("ray.serve")

_PLACE = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<key>.*))?", re.DOTALL)


def canonical_prefix(prefix: str) -> str:
    """A configured prefix as a folder, ending in a slash.

    Raises:
        ValueError: it is not on S3, or no place that could be compared with.
    """
    place = _PLACE.fullmatch(prefix)
    folder = (place["key"] or "").removesuffix("/") if place else ""
    if not place or (folder and not _is_plain(folder)):
        raise ValueError(f"{prefix!r} is no prefix of images: write s3://bucket/prefix")
    return prefix.removesuffix("/") + "/"


class Sources:
    """Reads images below the prefixes, as `canonical_prefix` gives them, of at most `max_bytes`."""

    def __init__(self, prefixes: Sequence[str], max_bytes: int) -> None:
        os.environ.setdefault(PATIENCE, str(PATIENCE_S))
        tell_waits_to(lambda _: log.warning("storage does not answer; it is waited for"))
        self._prefixes, self._max_bytes = tuple(prefixes), max_bytes
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="source")

    def check(self, uri: str) -> None:
        """Nothing if the address may be read.

        Raises:
            ProblemError: 422, it may not.
        """
        place = _PLACE.fullmatch(uri) if len(uri) <= LONGEST else None
        if not (place and _is_plain(place["key"] or "") and uri.startswith(self._prefixes)):
            raise ProblemError(
                422,
                "uri-refused",
                "This address may not be read",
                "a uri must be s3://bucket/key below one of the service's prefixes (service.uri_prefixes), "
                "without empty, '.' or '..' steps and without control characters",
            )

    async def read(self, uri: str) -> bytes:
        """The object's bytes.

        Raises:
            ProblemError: 422, the address may not be read; 404, nothing is there; 413, the object is too
                large; 503, storage fails.
        """
        self.check(uri)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, uri)

    def _read(self, uri: str) -> bytes:
        from ffaa_core.storage import locate

        try:
            store, key = locate(uri)
            content = store.read(key, limit=self._max_bytes + 1)
        except NotFoundError:
            raise ProblemError(
                404, "not-found", "Nothing is at this address", "there is no such object"
            ) from None
        except (StorageError, ConfigurationError) as error:
            log.warning("an image cannot be read: %s", _kind(error))
            raise ProblemError(
                503, "storage-failed", "The image cannot be read now", "its storage fails; try again later"
            ) from error
        if content.size > self._max_bytes:
            raise image_too_large(content.size, self._max_bytes)
        return content.data


def _kind(error: Exception) -> str:
    """What kind of error it is, with storage's code for it: its words name the address."""
    cause = error.__cause__
    code = getattr(cause, "response", {}).get("Error", {}).get("Code", "")
    names = [type(each).__name__ for each in (error, cause) if each]
    return printable(" ".join(dict.fromkeys([*names, str(code)])).strip())[:LONGEST_KIND]


def _is_plain(key: str) -> bool:
    """Whether every server takes the key for itself, never for another that may lie outside its prefix."""
    if not key.isprintable() or "\\" in key:
        return False
    spellings = (key, unquote(key), unquote(unquote(key)))
    return all(step not in ("", ".", "..") for each in spellings for step in re.split(r"[/\\]", each))
