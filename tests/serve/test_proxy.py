"""What stands before the gateways in Ray Serve's proxy."""

from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.proxy import BeforeGateways, middlewares


def client(app: ASGIApp) -> httpx.AsyncClient:
    (middleware,) = middlewares()
    wrapped: Any = middleware.cls(app, *middleware.args, **middleware.kwargs)
    assert isinstance(wrapped, BeforeGateways)
    return httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://proxy")


async def says_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """As Ray Serve's proxy does when a gateway dies over a request."""


async def test_a_request_that_nobody_answers_is_told_to_come_again() -> None:
    async with client(says_nothing) as asking:
        reply = await asking.get("/", headers={"X-Request-Id": "mine"})
        other = await asking.get("/")
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "2")
    assert reply.headers["Content-Type"].startswith("text/plain")
    assert reply.headers["X-Request-Id"] == "mine"
    assert other.headers["X-Request-Id"] not in ("", "mine")


async def test_every_503_says_when_to_try_again() -> None:
    async def busy(request: Request) -> PlainTextResponse:
        return PlainTextResponse("busy", 503, dict(request.query_params))

    async with client(Starlette(routes=[Route("/", busy)])) as asking:
        assert (await asking.get("/")).headers.get_list("Retry-After") == ["2"]
        assert (await asking.get("/?Retry-After=9")).headers.get_list("Retry-After") == ["9"]


async def test_other_replies_and_what_is_asked_pass_but_for_what_clients_may_not_tell() -> None:
    async def told(request: Request) -> JSONResponse:
        return JSONResponse(dict(request.headers))

    asked = {"X-Request-Timeout-Seconds": "1e9", "x-request-disconnect-disabled": "1", "Prefer": "wait=3"}
    async with client(Starlette(routes=[Route("/", told)])) as asking:
        reply = await asking.get("/", headers=asked)
    assert "Retry-After" not in reply.headers
    assert reply.json()["prefer"] == "wait=3"
    assert not {name for name in reply.json() if name.startswith("x-request")}
