"""Bodies from outside: their kind, JSON, and base64 in it."""

import base64
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from python_multipart.multipart import parse_options_header

from serve.problems import ProblemError, malformed

JSON = "application/json"

PIECE = 2**20
"""Characters of base64 that are decoded at once. Python does nothing else meanwhile, in whatever thread."""
MOST_VALUES = 100_000
"""Values that a body may have. Each takes far more memory than its bytes, and one long one is all we need."""


Model = TypeVar("Model", bound=BaseModel)


def require_kind(request: Request, *kinds: str) -> str:
    """Which of these media types the body has.

    Raises:
        ProblemError: 415, it has another, or is compressed.
    """
    given, _ = parse_options_header(request.headers.get("content-type"))
    kind = given.decode("latin-1")
    if kind not in kinds or request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemError(
            415,
            "unsupported-media-type",
            "The body is of a kind that is not read",
            f"send {' or '.join(kinds)}, without a Content-Encoding",
            {"Accept-Post": ", ".join(kinds)},
        )
    return kind


def read(content: bytes, model: type[Model], refused: Callable[[ValidationError], ProblemError]) -> Model:
    """What a body of JSON says. Of a large one this takes a while.

    Raises:
        ProblemError: 400, as `parse` does; what `refused` makes of a body that is not of the model's form.
    """
    said = parse(content)
    try:
        return model.model_validate(said)
    except ValidationError as error:
        raise refused(error) from None


def parse(content: bytes) -> Any:
    """What JSON says.

    Raises:
        ProblemError: 400, it is no JSON (RFC 8259), not in Unicode, nested too deeply, or of too many values.
    """
    if sum(map(content.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise malformed(f"it has more than {MOST_VALUES:,} values")
    try:
        return from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise malformed(f"it is no JSON: {error}") from None


def decoded_size(length: int) -> int:
    """Bytes that so many characters of base64 take at most once they are decoded."""
    return length * 3 // 4


def decoded(text: str) -> bytes:
    """The bytes of base64.

    Raises:
        ValueError: it is none.
    """
    pieces = [
        base64.b64decode(text[start : start + PIECE], validate=True) for start in range(0, len(text), PIECE)
    ]
    if any(len(piece) < PIECE * 3 // 4 for piece in pieces[:-1]):
        raise ValueError("padding is at the end only")
    return b"".join(pieces)
