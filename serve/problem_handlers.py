"""How requests that end in an error are answered: by problem details, or as OpenAI does on its paths."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from serve.callers import record_of
from serve.invalid import told
from serve.logs import CLIENT_LEFT
from serve.problem_replies import reply_to
from serve.problems import ProblemError, failed, invalid


def add_problem_handlers(app: FastAPI, retry_after_seconds: int) -> None:
    """Have every error of `app` answered as its path tells errors; a 503 says when to try again."""

    @app.exception_handler(ProblemError)
    async def _problem(request: Request, problem: ProblemError) -> JSONResponse:
        return reply(request, problem, retry_after_seconds)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return reply(request, invalid(told(list(error.errors()))), retry_after_seconds)

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
        return reply(request, failed(), retry_after_seconds)


def reply(request: Request, problem: ProblemError, retry_after_seconds: int) -> JSONResponse:
    """The reply that tells a problem."""
    record = record_of(request)
    record.problem = problem.kind
    return reply_to(request.scope, problem, record.id, retry_after_seconds)
