"""Who makes a request, and what will be logged of it."""

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.security import HTTPBearer

from serve.gateway import Gateway
from serve.logs import RequestRecord


def record_of(request: Request) -> RequestRecord:
    """What will be logged of the request."""
    record: RequestRecord = request.scope["state"]["record"]
    return record


def owner_of(gateway: Gateway) -> Callable[..., Any]:
    """A dependency: whose request it is, found out before anything else of it is looked at."""

    async def owner(request: Request) -> str:
        known = gateway.keys.owner(request.headers.get("authorization"))
        record_of(request).client = known[:12]
        return known

    return owner


bearer = HTTPBearer(auto_error=False, description="a key of this service; `ffaa serve --make-key` makes one")
"""Only says in the OpenAPI that a key is needed; `owner_of` asks for it."""
