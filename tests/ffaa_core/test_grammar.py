"""The grammar of a second attempt: all that matches can be read, and fits the tokens."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffaa_core.answers import Determination, Fields, ForgeryType
from ffaa_core.grammar import MAX_BUDGET, answer_regex, budget

TOKENS = budget(512)
FORM = re.compile(answer_regex(TOKENS))
KINDS = "|".join(kind.published for kind in ForgeryType)


def answer(
    result: str = "Fake", probability: str = "0.90", kind: str = "Identity exchange", text: str = "x"
) -> str:
    return (
        f"Image description: {text}\nForgery reasoning: {text}\nAnalysis result: {result}\n"
        f"Probability: {probability}\nForgery type: {kind}"
    )


@given(st.from_regex(FORM, fullmatch=True))
@settings(max_examples=200)
def test_whatever_matches_is_read_and_fits_the_tokens(text: str) -> None:
    assert Fields.parse(text) is not None
    assert len(text) + 1 <= TOKENS


@pytest.mark.parametrize("tokens", [budget(1), budget(64), TOKENS, MAX_BUDGET])
def test_even_the_longest_answer_spelled_out_by_character_fits(tokens: int) -> None:
    form = re.compile(answer_regex(tokens))
    longest = max(n for n in range(1, tokens) if form.fullmatch(answer(kind=LONGEST_KIND, text="x" * n)))
    assert tokens - 3 <= len(answer(kind=LONGEST_KIND, text="x" * longest)) + 1 <= tokens


LONGEST_KIND = max((kind.published for kind in ForgeryType), key=len)


@given(
    st.builds(
        Fields,
        description=st.just("A man."),
        reasoning=st.just("The seams show."),
        result=st.just(Determination.FAKE),
        probability=st.integers(0, 100).map(lambda n: n / 100),
        forgery_type=st.sampled_from(ForgeryType),
    )
)
def test_a_rendered_answer_matches(fields: Fields) -> None:
    assert FORM.fullmatch(fields.render())


@pytest.mark.parametrize(
    "text",
    [
        answer("Real", kind="Identity exchange"),
        answer("Fake", kind="N/A"),
        answer("Perhaps"),
        answer(probability="1.50"),
        answer(text=""),
        answer(text=" "),
        answer(text="two\nlines"),
        answer(text="an <image>"),
        answer(text="x" * TOKENS),
        answer() + "\n",
    ],
)
def test_contradictions_and_overlong_texts_do_not_match(text: str) -> None:
    assert not FORM.fullmatch(text)


@pytest.mark.parametrize(("max_tokens", "expected"), [(1, 256), (200, 400), (512, 1024), (5000, MAX_BUDGET)])
def test_a_second_attempt_has_twice_the_tokens_within_bounds(max_tokens: int, expected: int) -> None:
    assert budget(max_tokens) == expected
