"""The form of an answer as a regular expression, for the second attempt at an answer that was malformed.

Every text that matches is read by `Fields.parse`, and is so short that the tokens cannot run out: the free
text is printable ASCII and capped, and a token is at least one character. It has no angle brackets, in which
the special tokens of the conversation stand.
"""

from ffaa_core.answers import (
    DESCRIPTION,
    FORGERY_TYPE,
    NO_FORGERY,
    PROBABILITY,
    REASONING,
    RESULT,
    Determination,
    ForgeryType,
)

MAX_BUDGET = 1400
"""Tokens of a second attempt at most: with the prompt of a face, some 620, they fit a context of 2048."""

_MIN_BUDGET = 256
_END_TOKEN = 1
_INK = "[!-;=?-~]"
_INK_OR_SPACE = "[ -;=?-~]"
_PROBABILITIES = r"(?:0\.\d\d|1\.00)"


def budget(max_tokens: int) -> int:
    """New tokens that a second attempt may take when the first could take `max_tokens`.

    Twice as many, for a model that spells its answer out in single characters must fit them too.
    """
    return min(max(2 * max_tokens, _MIN_BUDGET), MAX_BUDGET)


def answer_regex(tokens: int) -> str:
    """What an answer of at most `tokens` tokens, the one that ends it included, must match.

    Result and forgery type are tied together: real goes with none, fake with one of the three.
    """
    free_text = (tokens - _END_TOKEN - _LONGEST_FORM) // 2
    return _form(free_text)


def _form(free_text: int) -> str:
    text = f"{_INK}{_INK_OR_SPACE}{{0,{free_text - 1}}}"
    return f"{DESCRIPTION}: {text}\n{REASONING}: {text}\n{RESULT}: (?:{_real()}|{_fake()})"


def _real() -> str:
    return _conclusion(Determination.REAL, NO_FORGERY)


def _fake() -> str:
    return _conclusion(Determination.FAKE, f"(?:{'|'.join(kind.published for kind in ForgeryType)})")


def _conclusion(result: Determination, forgery_type: str) -> str:
    return f"{result.capitalize()}\n{PROBABILITY}: {_PROBABILITIES}\n{FORGERY_TYPE}: {forgery_type}"


_LONGEST_FORM = len(
    f"{DESCRIPTION}: \n{REASONING}: \n{RESULT}: Fake\n{PROBABILITY}: 0.00\n{FORGERY_TYPE}: "
    + max((kind.published for kind in ForgeryType), key=len)
)
"""Characters of the longest answer, its free text left out."""
