"""What stands before the gateways in Ray Serve's proxy."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
import pytest_asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.envelope import SECURITY_HEADERS
from serve.proxy import NOT_FOR_CLIENTS, BeforeGateways, middlewares
from serve.proxy_bounds import VARIABLES
from tests.serve.asking import problem


def client(app: ASGIApp) -> httpx.AsyncClient:
    (middleware,) = middlewares()
    wrapped: Any = middleware.cls(app, *middleware.args, **middleware.kwargs)
    assert isinstance(wrapped, BeforeGateways)
    return httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://proxy")


def at_root(endpoint: Any) -> Starlette:
    return Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])])


async def says_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """As Ray Serve's proxy does when a gateway dies over a request."""


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a secret of ours")


async def waits(scope: Scope, receive: Receive, send: Send) -> None:
    """As Ray Serve's proxy does while there is no gateway: it takes the body in, and ends when cancelled."""
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except asyncio.CancelledError:
        return


async def tells(request: Request) -> JSONResponse:
    return JSONResponse([[name, value] for name, value in request.headers.items()])


@pytest.mark.parametrize("app", [says_nothing, fails])
async def test_a_request_that_nobody_answers_is_told_to_come_again(app: ASGIApp) -> None:
    async with client(app) as asking:
        reply = await asking.get("/", headers={"X-Request-Id": "mine"})
        other = await asking.get("/")
    assert (reply.status_code, problem(reply)) == (503, "unavailable")
    assert reply.headers["Retry-After"] == "2"
    assert reply.headers["X-Request-Id"] == "mine"
    assert other.headers["X-Request-Id"] not in ("", "mine")
    assert (
        SECURITY_HEADERS.items() <= {name.title(): reply.headers[name] for name in SECURITY_HEADERS}.items()
    )
    assert "secret" not in reply.text


async def test_on_openais_paths_it_is_told_as_openai_does() -> None:
    async with client(says_nothing) as asking:
        reply = await asking.get("/v1/models")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "unavailable")


async def test_a_client_that_leaves_is_answered_nothing() -> None:
    sent = list[Any]()
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}

    async def leave() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    (middleware,) = middlewares()
    await middleware.cls(waits, *middleware.args)(scope, leave, send)
    assert sent == []


async def test_every_503_says_when_to_try_again() -> None:
    async def busy(request: Request) -> PlainTextResponse:
        return PlainTextResponse("busy", 503, dict(request.query_params))

    async with client(at_root(busy)) as asking:
        assert (await asking.get("/")).headers.get_list("Retry-After") == ["2"]
        assert (await asking.get("/?Retry-After=9")).headers.get_list("Retry-After") == ["9"]


async def test_other_replies_and_what_is_asked_pass() -> None:
    async with client(at_root(tells)) as asking:
        reply = await asking.get("/", headers={"Prefer": "wait=3"})
    assert "Retry-After" not in reply.headers
    assert dict(reply.json())["prefer"] == "wait=3"


@pytest.mark.parametrize("name", [name.decode() for name in NOT_FOR_CLIENTS])
async def test_what_clients_may_not_tell_is_kept_from_the_proxy(name: str) -> None:
    async with client(at_root(tells)) as asking:
        for spelling in (name, name.title(), name.replace("-", "_"), name.replace("-", "_", 1)):
            reply = await asking.get("/", headers={spelling: "1"})
            told = {each.replace("_", "-") for each, _ in reply.json()}
            assert "prefer" not in told
            assert name not in told


def test_these_are_the_headers_that_ray_serve_obeys() -> None:
    from ray.serve._private import constants

    obeyed = {
        constants.SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER,
        constants.SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER,
        constants.SERVE_MULTIPLEXED_MODEL_ID,
        constants.SERVE_SESSION_ID,
    }
    assert {name.replace("_", "-") for name in obeyed} == {name.decode() for name in NOT_FOR_CLIENTS}


@pytest.mark.parametrize("given", [[b"mine"], [b"\xff"], [b"a b"], [b""], [b"mine", b"another"], []])
async def test_a_request_has_one_id_that_can_be_shown(given: list[bytes]) -> None:
    async with client(at_root(tells)) as asking:
        reply = await asking.get("/", headers=[(b"X-Request-Id", each) for each in given])
    (passed,) = (value for name, value in reply.json() if name == "x-request-id")
    assert reply.headers.get_list("X-Request-Id") == [passed]
    assert passed == "mine" if b"mine" in given else len(passed) == 36


@pytest.mark.parametrize("stated", [True, False])
async def test_a_body_that_is_too_long_is_not_taken_in(monkeypatch: pytest.MonkeyPatch, stated: bool) -> None:
    monkeypatch.setenv(VARIABLES["body_bytes"], "1000")
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 100
            yield b"x" * 100

    async with client(waits) as asking:
        headers = {"Content-Length": "1001"} if stated else {}
        reply = await asking.post("/", content=body(), headers=headers)
        assert (reply.status_code, problem(reply)) == (413, "too-large")
        assert sent == (0 if stated else 1100)


async def test_the_bodies_under_way_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES["all_bytes"], "1000")
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "http.disconnect":
            await release.wait()
            await PlainTextResponse("done")(scope, receive, send)

    async with client(app) as asking:
        first = asyncio.ensure_future(asking.post("/", content=b"x" * 600))
        await asyncio.sleep(0.1)
        refused = await asking.post("/", content=b"x" * 401)
        assert (refused.status_code, problem(refused)) == (503, "overloaded")
        release.set()
        assert (await first).text == "done"
        assert (await asking.post("/", content=b"x" * 1000)).text == "done"


async def test_what_nobody_takes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES["seconds"], "0.2")
    async with client(waits) as asking:
        reply = await asking.get("/")
    assert (reply.status_code, problem(reply)) == (503, "deadline")
    assert reply.headers["Retry-After"] == "2"


async def test_a_reply_that_has_begun_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES["seconds"], "0.2")

    async def streams(request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield b"x"
                await asyncio.sleep(0.15)

        return StreamingResponse(pieces())

    async with client(at_root(streams)) as asking:
        assert (await asking.get("/")).text == "xxxx"


@pytest_asyncio.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    """Where a server listens as Ray Serve's proxy does, which takes from headers what that takes."""
    from ray.serve._private.http_util import _apply_middlewares
    from ray.serve._private.proxy import HTTPProxy
    from ray.serve._private.proxy_request_response import ASGIProxyRequest

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked, handle = ASGIProxyRequest(scope, receive, send), MagicMock()
        taken = HTTPProxy.setup_request_context_and_handle(
            MagicMock(), "ffaa", handle, "/", asked, "internal"
        )
        told = {"id": taken[1], "options": handle.options.call_count}
        await JSONResponse(told)(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(_apply_middlewares(app, middlewares()), lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        yield listener.getsockname()
        server.should_exit = True
        await serving


@pytest.mark.parametrize(
    "header",
    [
        b"X-Request-Id: \xff",
        b"X-Request-Id: <script>",
        b"serve_multiplexed_model_id: \xff",
        b"Serve-Multiplexed-Model-Id: mine",
        b"X-Session-Id: \xff",
        b"x_session_id: mine",
        b"Accept: \xff",
    ],
)
async def test_no_header_fails_the_proxy_or_steers_it(address: tuple[str, int], header: bytes) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", b"Connection: close", header, b"", b""]))
    head, _, content = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 ")
    told = json.loads(content)
    assert told["options"] == 0
    assert re.findall(rb"(?i)^x-request-id: (.*?)\r?$", head, re.MULTILINE) == [told["id"].encode()]
    assert re.fullmatch(r"[0-9a-f-]{36}", told["id"])
