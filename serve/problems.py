"""Errors of HTTP as problem details (RFC 9457): what was wrong, with what, and what to do."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field

from ffaa_core.errors import FFAAError

MEDIA_TYPE = "application/problem+json"
TYPES = "urn:ffaa:problem:"
"""Begins the `type` of every problem of this service's own."""


class ProblemError(FFAAError):
    """Ends a request with problem details.

    Args:
        status: of the reply.
        kind: its type, in a few words joined by dashes; part of the interface.
        title: the type in words, the same for every problem of it.
        detail: what was wrong this time, and what to do.
        headers: of the reply.
    """

    def __init__(
        self, status: int, kind: str, title: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.title, self.detail = status, kind, title, detail
        self.headers = dict(headers or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return ProblemError, (self.status, self.kind, self.title, self.detail, self.headers)


class ProblemDetails(BaseModel):
    """What the body of an error says."""

    type: str = Field(examples=[f"{TYPES}overloaded"])
    title: str = Field(examples=["Too many requests are under way"])
    status: int = Field(examples=[503])
    detail: str = Field(examples=["64 requests are under way; try again after 2 s"])
    request_id: str = Field(examples=["6fd1b2a0-8c1d-4f0e-9c39-0d6f5c1c2f11"])


def documented(
    *statuses: int, schema: str = "ProblemDetails", media_type: str = MEDIA_TYPE
) -> dict[int | str, dict[str, Any]]:
    """These statuses as OpenAPI's `responses`."""
    content = {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        described[status] = {"description": HTTPStatus(status).phrase, "content": content}
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            described[status] |= {
                "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds to wait"}},
                "content": content | {"text/plain": {"schema": {"type": "string"}}},
            }
    return described


def invalid(detail: str) -> ProblemError:
    """The request is well-formed and says what cannot be: 422."""
    return ProblemError(422, "invalid", "The request is not valid", detail)


def malformed(detail: str) -> ProblemError:
    """The body cannot be read: 400."""
    return ProblemError(400, "malformed", "The body cannot be read", detail)


def overloaded(detail: str) -> ProblemError:
    """A bound is reached: 503."""
    return ProblemError(503, "overloaded", "Too many requests are under way", detail)


def unavailable(detail: str) -> ProblemError:
    """A part of the service is being replaced: 503."""
    return ProblemError(503, "unavailable", "A part of the service is not there now", detail)


def failed() -> ProblemError:
    """Something happened that nobody has thought of: 500."""
    return ProblemError(
        500,
        "internal",
        "The service failed",
        "this is a fault of the service; its log says more under the request id",
    )


def too_slow(seconds: float) -> ProblemError:
    """The body did not arrive in time: 408."""
    return ProblemError(
        408, "timeout", "The body did not arrive in time", f"it was not whole after {seconds:g} s"
    )


def expired(seconds: float) -> ProblemError:
    """The request's deadline has passed: 503."""
    return ProblemError(
        503, "deadline", "The deadline has passed", f"not done within {seconds:g} s; try again later"
    )
