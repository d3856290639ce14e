"""Problems as OpenAI tells them, on the paths that are OpenAI's."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from starlette.types import Scope

from serve import problems
from serve.invalid import place_of, told, wrong_in
from serve.problems import ProblemError

PATHS = ("/v1/chat/", "/v1/models")

_CODES = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}


class OpenAIError(BaseModel):
    """What was wrong. `code` is part of the interface, `param` the offending field if there is one."""

    message: str = Field(examples=["64 requests are under way"])
    type: str = Field(examples=["server_error"])
    param: str | None = Field(examples=[None])
    code: str | None = Field(examples=["overloaded"])


class OpenAIErrorReply(BaseModel):
    """The body of an error."""

    error: OpenAIError


class RefusedError(ProblemError):
    """Refuses a request for what one of its fields says: 400, unless `status` says otherwise."""

    def __init__(self, param: str, code: str, message: str, status: int = 400) -> None:
        super().__init__(status, code, "The request is refused", message)
        self.param = param


def is_openai(scope: Scope) -> bool:
    """Whether a request is for one of OpenAI's paths."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")).startswith(PATHS)


def error_of(problem: ProblemError) -> dict[str, Any]:
    """The content of an `OpenAIErrorReply`."""
    failed = problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    unknown = problem.status == HTTPStatus.UNAUTHORIZED
    error = OpenAIError(
        message=problem.detail,
        type="server_error" if failed else "invalid_request_error",
        param=problem.param if isinstance(problem, RefusedError) else None,
        code="invalid_api_key" if unknown else problem.kind.replace("-", "_"),
    )
    return OpenAIErrorReply(error=error).model_dump()


def not_valid(error: ValidationError) -> RefusedError:
    """What pydantic found wrong with a request."""
    wrong = wrong_in(error)
    return RefusedError(place_of(wrong[0]), _CODES.get(wrong[0]["type"], "invalid_value"), told(wrong))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses as OpenAPI's `responses`."""
    return problems.documented(*statuses, schema=OpenAIErrorReply.__name__, media_type="application/json")
