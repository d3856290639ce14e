"""Asking a gateway whose models are stand-ins, and reading what it replies."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx

from tests.serve.stand_ins import Service

MakeService = Callable[..., Service]


def problem(reply: httpx.Response) -> str:
    """The type of the problem that a reply tells, which must be as RFC 9457 has it."""
    details = reply.json()
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert details["status"] == reply.status_code
    assert details["title"]
    assert details["detail"]
    assert details["request_id"] == reply.headers["X-Request-Id"]
    return str(details["type"]).removeprefix("urn:ffaa:problem:")


async def score(service: Service, image: bytes, **options: Any) -> httpx.Response:
    return await service.client.post("/v1/score", files={"file": image}, **options)


JSON = {"Content-Type": "application/json"}


async def until(condition: Callable[[], object]) -> None:
    """Wait for what other tasks do."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)
