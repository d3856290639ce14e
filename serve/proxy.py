"""What stands before the gateways, in Ray Serve's own proxy: `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`.

The proxy has no reply for a request whose gateway died over it, and then its server tells a 500; it has a 503
without Retry-After; and it obeys headers by which a client lifts the bounds of this service.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.envelope import REQUEST_ID, SECURITY_HEADERS
from serve.logs import request_id

VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""Environment variable of every process of Ray's; its value is IMPORT_PATH."""
IMPORT_PATH = "serve.proxy:middlewares"

RETRY_AFTER_S = 2
"""When to try again after a reply that no gateway gave."""

LOST = "a part of the service died over this request; try again"
NOT_FOR_CLIENTS = (b"x-request-timeout-seconds", b"x-request-disconnect-disabled")


def middlewares() -> list[Middleware]:
    """Called by Ray Serve's proxy as it starts."""
    return [Middleware(BeforeGateways)]


class BeforeGateways:
    """Wraps the proxy's application: every request gets a reply, every 503 says when to try again, and no
    client tells the proxy what to do.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start" and message["status"] == 503:
                MutableHeaders(scope=message).setdefault("Retry-After", str(RETRY_AFTER_S))
            await send(message)

        headers = [each for each in scope["headers"] if each[0].lower() not in NOT_FOR_CLIENTS]
        await self._app({**scope, "headers": headers}, receive, send_and_note)
        if not begun:
            own = {REQUEST_ID: request_id(Headers(scope=scope).get(REQUEST_ID))}
            lost = PlainTextResponse(LOST, 503, SECURITY_HEADERS | own)
            await lost(scope, receive, send_and_note)
