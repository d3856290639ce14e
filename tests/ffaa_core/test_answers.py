"""Parsing, masking and rendering of answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffaa_core.answers import Determination, Fields, ForgeryType

WELL_FORMED = (
    "Image description: A man with a beard.\n"
    "Forgery reasoning: The jaw is blended.\nIt shows twice.\n"
    "Analysis result: Fake\n"
    "Probability: 0.93\n"
    "Forgery type: Identity exchange"
)

free_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)
kinds = st.none() | st.sampled_from(list(ForgeryType))


def test_a_well_formed_answer_is_read_field_by_field() -> None:
    assert Fields.parse(WELL_FORMED) == Fields(
        description="A man with a beard.",
        reasoning="The jaw is blended.\nIt shows twice.",
        result=Determination.FAKE,
        probability=0.93,
        forgery_type=ForgeryType.IDENTITY_EXCHANGE,
    )


def test_a_masked_answer_holds_the_first_two_fields_only() -> None:
    fields = Fields.parse(WELL_FORMED)
    assert fields is not None
    assert fields.masked() == WELL_FORMED[: WELL_FORMED.index("\nAnalysis result")]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Analysis result: Fake", "Analysis result: Real"),
        ("Forgery type: Identity exchange", "Forgery type: N/A"),
        ("Forgery type: Identity exchange", "Forgery type: Something else"),
        ("Forgery type: Identity exchange", ""),
        ("Probability: 0.93", "Probability: 1.93"),
        ("Probability: 0.93", "Probability: high"),
        ("Analysis result: Fake\n", ""),
        ("Analysis result: Fake", "Analysis result: Fake-ish"),
        ("Image description: A man with a beard.", "Image description: "),
    ],
)
def test_an_answer_that_lacks_or_contradicts_a_field_is_malformed(old: str, new: str) -> None:
    assert old in WELL_FORMED
    assert Fields.parse(WELL_FORMED.replace(old, new)) is None


@pytest.mark.parametrize("text", ["", "real", WELL_FORMED + "\nUSER: and now?", WELL_FORMED[:-9]])
def test_a_text_that_is_not_exactly_one_answer_is_malformed(text: str) -> None:
    assert Fields.parse(text) is None


@given(description=free_text, reasoning=free_text, kind=kinds, probability=st.floats(0, 1))
def test_what_is_rendered_is_read_back(
    description: str, reasoning: str, kind: ForgeryType | None, probability: float
) -> None:
    fields = Fields(
        description=description.splitlines()[0].strip() or "a face",
        reasoning=reasoning.splitlines()[0].strip() or "a reason",
        result=Determination.FAKE if kind else Determination.REAL,
        probability=round(probability, 2),
        forgery_type=kind,
    )
    assert Fields.parse(fields.render()) == fields
