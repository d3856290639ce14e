"""A problem as a reply: problem details, or as OpenAI tells it on its paths."""

from http import HTTPStatus

from starlette.responses import JSONResponse
from starlette.types import Scope

from serve.openai_errors import error_of, is_openai
from serve.problems import MEDIA_TYPE, TYPES, ProblemDetails, ProblemError


def reply_to(scope: Scope, problem: ProblemError, request_id: str, retry_after_seconds: int) -> JSONResponse:
    """The reply to the request of this scope and id; a 503 says when to try again."""
    headers = dict(problem.headers)
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("Retry-After", str(retry_after_seconds))
    if is_openai(scope):
        return JSONResponse(error_of(problem), status_code=problem.status, headers=headers)
    details = ProblemDetails(
        type=TYPES + problem.kind,
        title=problem.title,
        status=problem.status,
        detail=problem.detail,
        request_id=request_id,
    )
    return JSONResponse(
        details.model_dump(), status_code=problem.status, headers=headers, media_type=MEDIA_TYPE
    )
