"""Errors of HTTP as problem details (RFC 9457): what was wrong, with what, and what to do."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ffaa_core.errors import FFAAError
from serve.logs import CLIENT_LEFT

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


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses as OpenAPI's `responses`."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        described[status] = {"description": HTTPStatus(status).phrase, "content": content}
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            described[status] |= {
                "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds to wait"}},
                "content": content | {"text/plain": {"schema": {"type": "string"}}},
            }
    return described


def add_problem_handlers(app: FastAPI, retry_after_seconds: int) -> None:
    """Have every error of `app` answered by problem details; a 503 says when to try again."""

    @app.exception_handler(ProblemError)
    async def _problem(request: Request, problem: ProblemError) -> JSONResponse:
        return reply(request, problem, retry_after_seconds)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return reply(request, invalid(wrong), retry_after_seconds)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        phrase = HTTPStatus(error.status_code).phrase
        kind = phrase.lower().replace(" ", "-")
        problem = ProblemError(error.status_code, kind, phrase, str(error.detail), error.headers)
        return reply(request, problem, retry_after_seconds)

    @app.exception_handler(ClientDisconnect)
    async def _left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_LEFT)

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
        problem = ProblemError(
            500,
            "internal",
            "The service failed",
            "this is a fault of the service; its log says more under the request id",
        )
        return reply(request, problem, retry_after_seconds)


def reply(request: Request, problem: ProblemError, retry_after_seconds: int) -> JSONResponse:
    """The reply that tells a problem."""
    details = ProblemDetails(
        type=TYPES + problem.kind,
        title=problem.title,
        status=problem.status,
        detail=problem.detail,
        request_id=request.scope["state"]["record"].id,
    )
    headers = dict(problem.headers)
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("Retry-After", str(retry_after_seconds))
    return JSONResponse(
        details.model_dump(), status_code=problem.status, headers=headers, media_type=MEDIA_TYPE
    )


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


def too_slow(seconds: float) -> ProblemError:
    """The body did not arrive in time: 408."""
    return ProblemError(
        408, "timeout", "The body did not arrive in time", f"it was not whole after {seconds:g} s"
    )


def expired(seconds: float) -> ProblemError:
    """The request's deadline has passed: 503."""
    return ProblemError(
        503, "deadline", "The deadline has passed", f"no verdict within {seconds:g} s; try again later"
    )
