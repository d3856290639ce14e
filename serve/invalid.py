"""What pydantic found wrong, told in so many words at most: it quotes what the client sent."""

from typing import Any

from pydantic import ValidationError

from ffaa_core.printable import printable

SAY_AT_MOST = 3
LONGEST_PLACE, LONGEST = 100, 200
"""Characters of which field an error is about, and of what is wrong there."""


def wrong_in(error: ValidationError) -> list[dict[str, Any]]:
    """Its errors, as pydantic has them, without what was given."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return [dict(each) for each in found]


def told(wrong: list[dict[str, Any]]) -> str:
    """The first of such errors in words, and how many more there are."""
    said = [f"{place_of(each)}: {printable(each['msg'][:LONGEST])}" for each in wrong[:SAY_AT_MOST]]
    more = f", and {len(wrong) - SAY_AT_MOST} more" if len(wrong) > SAY_AT_MOST else ""
    return "; ".join(said) + more


def place_of(error: dict[str, Any]) -> str:
    """Which field an error is about."""
    steps = [str(step)[:LONGEST_PLACE] for step in error["loc"]]
    return printable(".".join(steps)[:LONGEST_PLACE]) or "the body"
