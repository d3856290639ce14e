"""Admission, bodies and deadlines."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import Request

from serve.limits import Admission, chunks, seconds_left
from serve.problems import ProblemError


def test_one_request_more_than_may_be_is_refused() -> None:
    admission = Admission(2, 100)
    with admission.request(), admission.request():
        assert admission.under_way == 2
        with pytest.raises(ProblemError) as refused, admission.request():
            pass
        assert (refused.value.status, refused.value.kind) == (503, "overloaded")
    with admission.request():
        assert admission.under_way == 1


def test_what_all_requests_hold_together_is_bounded_and_given_back() -> None:
    admission = Admission(9, 100)
    with admission.request() as one:
        one.hold(60)
        with pytest.raises(ProblemError, match="memory"), admission.request() as other:
            other.hold(41)
    with admission.request() as later:
        later.hold(100)
        later.release(40)
        with pytest.raises(ProblemError, match="memory"), admission.request() as other:
            other.hold(41)
    with admission.request() as last:
        last.hold(100)


async def test_after_the_end_began_none_is_admitted_and_those_under_way_are_waited_for() -> None:
    admission = Admission(9, 100)
    with admission.request(), admission.request():
        admission.close()
        idle = asyncio.ensure_future(admission.idle())
        with pytest.raises(ProblemError) as refused, admission.request():
            pass
        assert (refused.value.status, refused.value.kind) == (503, "unavailable")
        await asyncio.sleep(0)
        assert not idle.done()
    await idle


def request_of(body: list[bytes], **headers: str) -> tuple[Request, list[bytes]]:
    """A request, and those parts of its body that were not read."""
    left = list(body)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive), left


async def read(parts: AsyncIterator[bytes]) -> bytes:
    return b"".join([part async for part in parts])


async def test_a_body_within_the_limit_is_read() -> None:
    with Admission(1, 100).request() as held:
        request, _ = request_of([b"ab", b"cd"], content_length="4")
        assert await read(chunks(request, held, 4)) == b"abcd"
        assert held.bytes == 4


async def test_a_body_that_says_that_it_is_too_long_is_not_read() -> None:
    with Admission(1, 100).request() as held:
        request, left = request_of([b"abcde"], content_length="5")
        with pytest.raises(ProblemError) as refused:
            await read(chunks(request, held, 4))
    assert refused.value.status == 413
    assert left == [b"abcde"]


async def test_a_body_that_does_not_say_how_long_it_is_is_read_up_to_the_limit_only() -> None:
    with Admission(1, 100).request() as held:
        request, left = request_of([b"ab", b"cd", b"e", b"never read"])
        with pytest.raises(ProblemError) as refused:
            await read(chunks(request, held, 4))
    assert refused.value.status == 413
    assert left == [b"never read"]


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 60),
        ("", 60),
        ("wait=10", 10),
        ("respond-async, wait=10", 10),
        ("wait = 10; x=1", 10),
        ('WAIT="7"', 7),
        ("wait=0", 60),
        ("wait=00, wait=07", 7),
        ("wait=3600", 60),
        ("wait=-1", 60),
        ("wait=1.5", 60),
        ("wait=nan", 60),
        ("await=1", 60),
    ],
)
def test_a_client_may_ask_for_an_earlier_deadline(prefer: str | None, seconds: float) -> None:
    assert seconds_left(prefer, 60) == seconds
