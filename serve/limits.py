"""What bounds a request: how many there are at once, the bytes of their bodies, and their deadlines."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from fastapi import Request
from starlette.datastructures import Headers

from serve.problems import ProblemError, overloaded, unavailable

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(0*[1-9]\d{0,8})\"?(?=$|[,;\s])", re.IGNORECASE)


class Admission:
    """Counts the requests under way in one gateway, and the bytes they hold; what would exceed either bound
    is refused at once. `under_way` is their number; once it is `closed` none is admitted.
    """

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self.under_way = 0
        self.closed = False
        self._max_requests, self._max_bytes = max_requests, max_bytes
        self._bytes = 0
        self._left = asyncio.Event()

    def close(self) -> None:
        """Admit no more requests: the service ends."""
        self.closed = True

    async def idle(self) -> None:
        """Wait until no request is under way."""
        while self.under_way:
            self._left.clear()
            await self._left.wait()

    @contextmanager
    def request(self) -> Iterator["Held"]:
        """Admit one request for the block.

        Raises:
            ProblemError: 503, as many as may be are under way, or the service ends.
        """
        if self.closed:
            raise unavailable("the service is ending; another one may take its place")
        if self.under_way >= self._max_requests:
            raise overloaded(f"{self.under_way} requests are under way")
        self.under_way += 1
        held = Held(self)
        try:
            yield held
        finally:
            self.under_way -= 1
            self._left.set()
            self._bytes -= held.bytes

    def _hold(self, more: int) -> None:
        if self._bytes + more > self._max_bytes:
            raise overloaded("the images under way take all of the memory that they may")
        self._bytes += more


class Held:
    """What one request holds of an `Admission`: `bytes`. It is `received` once its body has come whole."""

    def __init__(self, admission: Admission) -> None:
        self.bytes = 0
        self.received = False
        self._admission = admission

    def hold(self, more: int) -> None:
        """Hold so many bytes more until the request ends.

        Raises:
            ProblemError: 503, there is no room for them.
        """
        self._admission._hold(more)
        self.bytes += more

    def release(self, less: int) -> None:
        """Give so many of them back."""
        self._admission._hold(-less)
        self.bytes -= less


async def chunks(request: Request, held: Held, max_bytes: int) -> AsyncIterator[bytes]:
    """The body as it comes, ended as soon as it is known to be too long.

    Raises:
        ProblemError: 413, it says or turns out to have more than `max_bytes`; 503, there is no room for it.
    """
    require_length(request.headers, max_bytes)
    read = 0
    async for chunk in request.stream():
        read += len(chunk)
        if read > max_bytes:
            raise body_too_large(max_bytes)
        held.hold(len(chunk))
        yield chunk
    held.received = True


def require_length(headers: Headers, max_bytes: int) -> None:
    """Nothing if a body of these headers may have at most `max_bytes`.

    Raises:
        ProblemError: 413, it says that it has more.
    """
    stated = headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > max_bytes:
        raise body_too_large(max_bytes)


def body_too_large(max_bytes: int) -> ProblemError:
    """413 for a body."""
    return ProblemError(
        413, "too-large", "The body is too large", f"the limit is {max_bytes:,} bytes for the whole body"
    )


def image_too_large(size: int, max_bytes: int) -> ProblemError:
    """413 for an image within a body that is not, or for one that a URI names."""
    return ProblemError(
        413,
        "too-large",
        "The image is too large",
        f"it has {size:,} bytes, the limit is {max_bytes:,} (decode.max_bytes)",
    )


def seconds_left(prefer: str | None, limit: float) -> float:
    """How long a request may take: `limit`, or less if its `Prefer: wait=SECONDS` (RFC 7240) says so. Nobody
    can be answered within 0 seconds, and so that is no preference.
    """
    asked = _WAIT.search(prefer or "")
    return min(limit, float(asked[1])) if asked else limit
