"""What stands before the gateways, in Ray Serve's own proxy: `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`.

The proxy takes a body in before anybody has looked at the key, waits without end for a gateway to come, has
no reply for a request whose gateway died over it, and obeys headers by which a client lifts the bounds of
this service.
"""

import asyncio
import logging
import sys

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.envelope import REQUEST_ID, SECURITY_HEADERS
from serve.limits import Admission, Held, body_too_large, require_length
from serve.logs import request_id
from serve.problem_replies import reply_to
from serve.problems import ProblemError, expired, unavailable
from serve.proxy_bounds import Bounds

VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""Environment variable of every process of Ray's; its value is IMPORT_PATH."""
IMPORT_PATH = "serve.proxy:middlewares"

RETRY_AFTER_S = 2
"""When to try again after a reply that no gateway gave."""

LOST = "a part of the service died over this request; try again"
NOT_FOR_CLIENTS = (
    b"x-request-timeout-seconds",
    b"x-request-disconnect-disabled",
    b"serve-multiplexed-model-id",  # the router remembers each, for ever
    b"x-session-id",
)
"""Headers that the proxy obeys, in any case and with `_` for any `-`. It fails over one that is no UTF-8."""

log = logging.getLogger("ray.serve")


def middlewares() -> list[Middleware]:
    """Called by Ray Serve's proxy as it starts."""
    return [Middleware(BeforeGateways, Bounds.of_environment())]


class BeforeGateways:
    """Wraps the proxy's application: every request gets a reply in time, one id, and no more memory than
    `bounds` say; every 503 says when to try again, and no client tells the proxy what to do.
    """

    def __init__(self, app: ASGIApp, bounds: Bounds) -> None:
        self._app, self._bounds = app, bounds
        self._bodies = Admission(sys.maxsize, bounds.all_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "headers" not in scope:
            await self._app(scope, receive, send)
            return
        own = request_id(Headers(scope=scope).get(REQUEST_ID))
        passed = [each for each in scope["headers"] if not _is_withheld(each[0])]
        scope = {**scope, "headers": [*passed, (REQUEST_ID.encode(), own.encode())]}
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._bodies.request() as held:
            await _Exchange(self._bounds, held, own, scope, receive, send).run(self._app)


class _Exchange:
    """One request and its reply."""

    def __init__(
        self, bounds: Bounds, held: Held, own_id: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._bounds, self._held, self._id = bounds, held, own_id
        self._scope, self._receive, self._send = scope, receive, send
        self._read = 0
        self._begun = self._has_left = False
        self._refusal: ProblemError | None = None
        self._deadline = asyncio.timeout(bounds.seconds)

    async def run(self, app: ASGIApp) -> None:
        """Have it answered by `app`, or by a problem where that does not begin to."""
        try:
            require_length(Headers(scope=self._scope), self._bounds.body_bytes)
            async with self._deadline:
                await app(self._scope, self._receive_within, self._send_on)
        except ProblemError as problem:
            self._refusal = problem
        except Exception as error:
            if self._begun:
                raise
            if not self._deadline.expired():
                log.exception("request %s failed before a gateway had it: %s", self._id, type(error).__name__)
        if not self._begun and not self._has_left:
            await self._refuse()

    async def _receive_within(self) -> Message:
        """What comes of the request; to the proxy, a client whose body is too long is one that has left."""
        message = await self._receive()
        self._has_left = message["type"] == "http.disconnect"
        more = len(message.get("body", b""))
        self._read += more
        try:
            if self._read > self._bounds.body_bytes:
                raise body_too_large(self._bounds.body_bytes)
            self._held.hold(more)
        except ProblemError as problem:
            self._refusal = problem
            return {"type": "http.disconnect"}
        return message

    async def _send_on(self, message: Message) -> None:
        if not self._begun and not self._deadline.expired():
            self._deadline.reschedule(None)
        self._begun = True
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault(REQUEST_ID, self._id)
            if message["status"] == 503:
                headers.setdefault("Retry-After", str(RETRY_AFTER_S))
        await self._send(message)

    async def _refuse(self) -> None:
        late = expired(self._bounds.seconds) if self._deadline.expired() else unavailable(LOST)
        problem = self._refusal or late
        log.warning("request %s is answered with %d: %s", self._id, problem.status, problem.kind)
        reply = reply_to(self._scope, problem, self._id, RETRY_AFTER_S)
        reply.headers.update(SECURITY_HEADERS)
        self._begun = True
        await reply(self._scope, self._receive, self._send_on)


def _is_withheld(header: bytes) -> bool:
    return header.lower().replace(b"_", b"-") in (REQUEST_ID.encode(), *NOT_FOR_CLIENTS)
