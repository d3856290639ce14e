"""JSON from outside, and base64 in it."""

import base64
from typing import Any

from pydantic_core import from_json

from serve.problems import malformed

PIECE = 2**20
"""Characters of base64 that are decoded at once. Python does nothing else meanwhile, in whatever thread."""
MOST_VALUES = 100_000
"""Values that a body may have. Each takes far more memory than its bytes, and one long one is all we need."""


def parse(content: bytes) -> Any:
    """What a body says.

    Raises:
        ProblemError: 400, it is no JSON (RFC 8259), not in Unicode, nested too deeply, or of too many values.
    """
    if sum(map(content.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise malformed(f"it has more than {MOST_VALUES:,} values")
    try:
        return from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise malformed(f"it is no JSON: {error}") from None


def decoded_size(text: str) -> int:
    """Bytes that base64 takes at most once it is decoded."""
    return len(text) * 3 // 4


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
