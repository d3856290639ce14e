"""The published rule that picks an answer, and the roll-up of faces into an image."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffaa_core.answers import Answer, Determination, Fields, ForgeryType
from ffaa_core.questions import Question
from ffaa_core.verdict import (
    Box,
    Difficulty,
    FaceVerdict,
    ImageVerdict,
    Status,
    class_probabilities,
    judge,
    match_score,
    roll_up,
)

REAL, FAKE = Determination.REAL, Determination.FAKE
BOX = Box(left=10, top=20, right=110, bottom=120)
FACE = FaceVerdict(box=BOX, detection_score=1.0, status=Status.ANSWER_FAILED, crop_sha256="00")
IMAGE = ImageVerdict(image_sha256="00", image_bytes=1, status=Status.NO_FACE, n_faces_detected=2)
logits = st.lists(st.floats(-60, 60), min_size=4, max_size=4)
three = st.tuples(logits, logits, logits)
results = st.tuples(*[st.sampled_from(Determination)] * 3)


def answers(said: Sequence[Determination]) -> list[Answer]:
    """Three answers with these determinations, each telling its question in its description."""
    return [
        Answer(
            question=question,
            text="",
            fields=Fields(
                description=question.value,
                reasoning="because",
                result=result,
                probability=0.9,
                forgery_type=ForgeryType.IDENTITY_EXCHANGE if result is FAKE else None,
            ),
            finish_reason="stop",
        )
        for question, result in zip(Question, said, strict=True)
    ]


def face(verdict: Determination | None, score: float = 0.0) -> FaceVerdict:
    status = Status.SCORED if verdict else Status.JUDGE_FAILED
    return FaceVerdict(
        box=BOX,
        detection_score=1.0,
        status=status,
        crop_sha256="00",
        verdict=verdict,
        forgery_score=score if verdict else None,
        contested=False if verdict else None,
    )


@given(logits=logits)
def test_match_scores_are_the_published_ratios_of_class_probabilities(logits: list[float]) -> None:
    p = class_probabilities(logits)
    assert math.isclose(sum(p), 1)
    if p[0] + p[2] > 1e-300:
        assert math.isclose(match_score(logits, REAL), p[0] / (p[0] + p[2]), abs_tol=1e-12)
    if p[3] + p[1] > 1e-300:
        assert math.isclose(match_score(logits, FAKE), p[3] / (p[3] + p[1]), abs_tol=1e-12)


def test_a_match_score_exists_where_the_ratio_would_divide_zero_by_zero() -> None:
    assert class_probabilities([-800, 800, -800, 0])[0] == 0
    assert match_score([-800, 800, -800, 0], REAL) == 0.5


@given(said=results, rows=three)
def test_the_answer_with_the_highest_match_score_is_the_verdict(
    said: tuple[Determination, ...], rows: tuple[list[float], ...]
) -> None:
    judged = judge(FACE, answers(said), rows)
    scores = [match_score(row, result) for row, result in zip(rows, said, strict=True)]
    assert judged.status is Status.SCORED
    assert judged.match_score == max(scores)
    assert judged.verdict is said[list(Question).index(judged.chosen or Question.OPEN)]
    assert judged.description == judged.chosen
    assert (judged.forgery_type is not None) == (judged.verdict is FAKE)
    assert judged.difficulty is (Difficulty.EASY if len(set(said)) == 1 else Difficulty.HARD)
    expected = judged.match_score if judged.verdict is FAKE else 1 - judged.match_score
    assert judged.forgery_score == expected


@pytest.mark.parametrize(
    ("said", "chosen"),
    [((REAL, FAKE, REAL), "open"), ((REAL, REAL, FAKE), "open"), ((FAKE, REAL, FAKE), "open")],
)
def test_ties_go_to_the_open_question(said: tuple[Determination, ...], chosen: str) -> None:
    assert judge(FACE, answers(said), [[0, 0, 0, 0]] * 3).chosen == chosen


@pytest.mark.parametrize(("open_result", "chosen"), [(REAL, "assume_fake"), (FAKE, "assume_real")])
def test_ties_of_the_hypotheses_go_to_the_one_opposite_to_the_open_answer(
    open_result: Determination, chosen: str
) -> None:
    rows = [[-1.0, 0, 0, -1], [1.0, 0, 0, 1], [1.0, 0, 0, 1]]
    assert judge(FACE, answers((open_result, REAL, FAKE)), rows).chosen == chosen


def test_a_face_is_contested_when_all_say_real_and_each_is_doubted() -> None:
    doubted = [-1.0, 0, 1, 0]
    judged = judge(FACE, answers((REAL, REAL, REAL)), [doubted] * 3)
    assert (judged.verdict, judged.contested) == (REAL, True)
    assert judged.forgery_score is not None
    assert judged.forgery_score > 0.5


def test_a_malformed_answer_is_never_judged() -> None:
    broken = [
        *answers((REAL, REAL, REAL))[:2],
        Answer(question=Question.ASSUME_FAKE, text="?", fields=None, finish_reason="stop"),
    ]
    with pytest.raises(ValueError, match="assume_fake is malformed"):
        judge(FACE, broken, [[0, 0, 0, 0]] * 3)


@pytest.mark.parametrize(
    ("faces", "status", "verdict", "score"),
    [
        ([], Status.NO_FACE, None, None),
        ([face(REAL, 0.2)], Status.SCORED, REAL, 0.2),
        ([face(REAL, 0.2), face(FAKE, 0.8)], Status.SCORED, FAKE, 0.8),
        ([face(REAL, 0.2), face(None)], Status.JUDGE_FAILED, None, 0.2),
        ([face(FAKE, 0.8), face(None)], Status.JUDGE_FAILED, FAKE, 0.8),
        ([face(None)], Status.JUDGE_FAILED, None, None),
    ],
)
def test_an_image_is_fake_by_one_face_and_real_only_by_all(
    faces: list[FaceVerdict], status: Status, verdict: Determination | None, score: float | None
) -> None:
    image = roll_up(IMAGE, faces)
    assert (image.status, image.verdict, image.forgery_score) == (status, verdict, score)
    assert image.n_faces == len(faces)


def test_faces_that_could_not_be_cropped_are_told() -> None:
    assert roll_up(IMAGE, []).status_detail == "2 detected, all too far outside the image to crop"
    assert roll_up(replace(IMAGE, n_faces_detected=0), []).status_detail is None


def test_faces_left_out_by_a_limit_are_told() -> None:
    assert (
        roll_up(IMAGE, [face(REAL)]).status_detail
        == "1 of 2 detected faces scored; the settings leave out the rest"
    )
