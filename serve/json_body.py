"""JSON from outside."""

from typing import Any

from pydantic_core import from_json

from serve.problems import malformed

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
