"""How requests that end in an error are answered: by problem details, or as OpenAI does on its paths."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from serve.callers import record_of
from serve.logs import CLIENT_LEFT
from serve.openai_errors import error_of, is_openai
from serve.problems import MEDIA_TYPE, TYPES, ProblemDetails, ProblemError, invalid


def add_problem_handlers(app: FastAPI, retry_after_seconds: int) -> None:
    """Have every error of `app` answered as its path tells errors; a 503 says when to try again."""

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
    record = record_of(request)
    record.problem = problem.kind
    headers = dict(problem.headers)
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("Retry-After", str(retry_after_seconds))
    if is_openai(request.scope):
        return JSONResponse(error_of(problem), status_code=problem.status, headers=headers)
    details = ProblemDetails(
        type=TYPES + problem.kind,
        title=problem.title,
        status=problem.status,
        detail=problem.detail,
        request_id=record.id,
    )
    return JSONResponse(
        details.model_dump(), status_code=problem.status, headers=headers, media_type=MEDIA_TYPE
    )
