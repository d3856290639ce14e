"""Problems as OpenAI tells them, on the paths that are OpenAI's."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from starlette.types import Scope

from ffaa_core.printable import printable
from serve import problems
from serve.problems import ProblemError

PATHS = ("/v1/chat/", "/v1/models")
SAY_AT_MOST = 3
LONGEST_NAME = 100

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
    found = error.errors(include_input=False, include_url=False, include_context=False)
    said = [f"{_name(each['loc'])}: {each['msg']}" for each in found[:SAY_AT_MOST]]
    more = f", and {len(found) - SAY_AT_MOST} more" if len(found) > SAY_AT_MOST else ""
    first = found[0]
    return RefusedError(
        _name(first["loc"]), _CODES.get(first["type"], "invalid_value"), "; ".join(said) + more
    )


def _name(place: tuple[int | str, ...]) -> str:
    return printable(".".join(map(str, place)))[:LONGEST_NAME] or "the body"


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses as OpenAPI's `responses`."""
    return problems.documented(*statuses, schema=OpenAIErrorReply.__name__, media_type="application/json")
