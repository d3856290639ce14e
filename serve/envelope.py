"""What every request and reply has, whatever it is about: an id, security headers, and a line in the log."""

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.logs import CLIENT_LEFT, ELSEWHERE, RequestRecord, log, request_id

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
REQUEST_ID = "x-request-id"


class Envelope:
    """Wraps an ASGI application. The `RequestRecord` of a request is in its state, as `record`; `ended` is
    told each when its request has ended.
    """

    def __init__(self, app: ASGIApp, ended: Callable[[RequestRecord], None]) -> None:
        self._app, self._ended = app, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID)
        record = RequestRecord(id=request_id(given), method=scope["method"], path=scope["path"])
        scope.setdefault("state", {})["record"] = record

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                if given is None:  # else Ray Serve's proxy adds it
                    headers[REQUEST_ID] = record.id
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            record.status = CLIENT_LEFT
            raise
        except Exception:
            if record.status is None:
                raise
            log.exception("request %s failed", record.id)  # its reply has been sent
        finally:
            record.route = getattr(scope.get("route"), "path", ELSEWHERE)
            record.write()
            self._ended(record)
