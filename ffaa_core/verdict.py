"""From the match scores of three answers to the verdict on a face, and from its faces to that on an image.

Source: FFAA's multi-answer selection as published (`judge`); the rules for several faces (`roll_up`) are this
project's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ffaa_core.answers import Answer, Determination, Fields, ForgeryType
from ffaa_core.questions import Question


class Status(StrEnum):
    """How the scoring of an image ended; a face has only the first, `ANSWER_FAILED` or `JUDGE_FAILED`."""

    SCORED = "scored"
    NO_FACE = "no_face"
    TOO_LARGE = "too_large"
    DECODE_FAILED = "decode_failed"
    GONE = "gone"
    FETCH_FAILED = "fetch_failed"
    CRASHED = "crashed"
    ANSWER_FAILED = "answer_failed"
    JUDGE_FAILED = "judge_failed"

    @property
    def settled(self) -> bool:
        """Whether this is what became of the image, by its content or because it is no more.

        An image that is `gone` and listed again is planned again all the same.
        """
        return self not in TRANSIENT

    @property
    def failed(self) -> bool:
        """Whether the image counts against the maximal failure rate of a run."""
        return self in TRANSIENT or self in (Status.DECODE_FAILED, Status.GONE)


TRANSIENT = frozenset({Status.FETCH_FAILED, Status.CRASHED, Status.ANSWER_FAILED, Status.JUDGE_FAILED})
"""Statuses that a later run plans again, at most `MAX_ATTEMPTS` times in all."""

MAX_ATTEMPTS = 3


class Difficulty(StrEnum):
    """Easy when the three answers agree, else hard."""

    EASY = "easy"
    HARD = "hard"


@dataclass(frozen=True, kw_only=True)
class Box:
    """A face's place in pixels of the decoded image, right and bottom exclusive; any side may lie outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


@dataclass(frozen=True, kw_only=True)
class JudgedAnswer:
    """An answer with what MIDS says of it: four class probabilities and the match score made from them."""

    answer: Answer
    class_probabilities: tuple[float, float, float, float] | None = None
    match_score: float | None = None


@dataclass(frozen=True, kw_only=True)
class FaceVerdict:
    """One face: where it is, what was said of it and what was concluded.

    `answers` stand in the order of `Question`. Everything after `crop_sha256` but `answers` is None unless
    the face is scored. `crop` is a lossless PNG and `heatmap` a PNG, both None unless asked for.
    """

    box: Box
    detection_score: float | None
    status: Status
    crop_sha256: str
    verdict: Determination | None = None
    forgery_type: ForgeryType | None = None
    match_score: float | None = None
    forgery_score: float | None = None
    difficulty: Difficulty | None = None
    contested: bool | None = None
    chosen: Question | None = None
    description: str | None = None
    reasoning: str | None = None
    answers: tuple[JudgedAnswer, ...] = ()
    crop: bytes | None = None
    heatmap: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class ImageVerdict:
    """One image: what it is, how its scoring ended, the verdict over its faces, and each of them.

    `n_faces_detected` may exceed `n_faces`, where a limit or the published mode left some faces out.
    """

    image_sha256: str | None
    image_bytes: int | None
    status: Status
    status_detail: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    verdict: Determination | None = None
    forgery_score: float | None = None
    contested: bool | None = None
    n_faces_detected: int | None = None
    n_faces: int | None = None
    faces: tuple[FaceVerdict, ...] = ()


def class_probabilities(logits: Sequence[float]) -> tuple[float, float, float, float]:
    """Softmax of MIDS's four logits for one answer.

    The classes: real image and answer says real, real and says fake, fake and says real, fake and says fake.
    """
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    total = sum(powers)
    p0, p1, p2, p3 = (power / total for power in powers)
    return p0, p1, p2, p3


def match_score(logits: Sequence[float], result: Determination) -> float:
    """How well an answer fits the picture, in [0, 1]: that its determination is right rather than wrong.

    With class probabilities p this is p0 / (p0 + p2) for an answer that says real and p3 / (p3 + p1) for one
    that says fake, written in logits so that it never divides zero by zero.
    """
    margin = logits[0] - logits[2] if result is Determination.REAL else logits[3] - logits[1]
    return 0.5 * (1 + math.tanh(margin / 2))


def judge(face: FaceVerdict, answers: Sequence[Answer], logits: Sequence[Sequence[float]]) -> FaceVerdict:
    """Choose the answer that fits the picture best and complete `face` with what follows from it.

    Ties go to the open question's answer, then to that of the hypothesis opposite to it, as published.

    Args:
        face: place and crop of the face.
        answers: its three well-formed answers, in the order of `Question`.
        logits: (3, 4), what MIDS says of each of them.
    """
    results = [_fields(answer).result for answer in answers]
    scores = [match_score(row, result) for row, result in zip(logits, results, strict=True)]
    opposite = 2 if results[0] is Determination.REAL else 1
    best = max((0, opposite, 3 - opposite), key=lambda i: scores[i])
    verdict, fields = results[best], _fields(answers[best])
    forgery_score = scores[best] if verdict is Determination.FAKE else 1 - scores[best]
    return replace(
        face,
        status=Status.SCORED,
        verdict=verdict,
        forgery_type=fields.forgery_type,
        match_score=scores[best],
        forgery_score=forgery_score,
        difficulty=Difficulty.EASY if len(set(results)) == 1 else Difficulty.HARD,
        contested=contested(verdict, forgery_score),
        chosen=answers[best].question,
        description=fields.description,
        reasoning=fields.reasoning,
        answers=tuple(
            JudgedAnswer(answer=answer, class_probabilities=class_probabilities(row), match_score=score)
            for answer, row, score in zip(answers, logits, scores, strict=True)
        ),
    )


def contested(verdict: Determination, forgery_score: float) -> bool:
    """Whether the verdict and the side on which the forgery score falls differ.

    It happens when all three answers say the same and MIDS doubts each of them.
    """
    return (forgery_score > 0.5) != (verdict is Determination.FAKE) and forgery_score != 0.5


def roll_up(image: ImageVerdict, faces: Sequence[FaceVerdict]) -> ImageVerdict:
    """Complete `image`, whose faces were found, with its faces' verdicts.

    Fake as soon as one scored face is fake; real only when every face is scored and real; otherwise none.
    The status is `SCORED` only when every face is, else that of the first face that failed.
    """
    if not faces:
        outside = f"{image.n_faces_detected} detected, all too far outside the image to crop"
        detail = outside if image.n_faces_detected else image.status_detail
        return replace(image, status=Status.NO_FACE, status_detail=detail, n_faces=0, faces=())
    failed = [face for face in faces if face.status is not Status.SCORED]
    scored = [face for face in faces if face.status is Status.SCORED]
    verdict = None
    if any(face.verdict is Determination.FAKE for face in scored):
        verdict = Determination.FAKE
    elif not failed:
        verdict = Determination.REAL
    return replace(
        image,
        status=failed[0].status if failed else Status.SCORED,
        status_detail=_detail(image, faces, failed),
        verdict=verdict,
        forgery_score=max(
            (face.forgery_score for face in scored if face.forgery_score is not None), default=None
        ),
        contested=any(face.contested for face in scored) if scored else None,
        n_faces=len(faces),
        faces=tuple(faces),
    )


def _fields(answer: Answer) -> Fields:
    if answer.fields is None:
        raise ValueError(f"the answer to {answer.question} is malformed and cannot be judged")
    return answer.fields


def _detail(image: ImageVerdict, faces: Sequence[FaceVerdict], failed: Sequence[FaceVerdict]) -> str | None:
    if failed:
        return f"{len(failed)} of {len(faces)} faces could not be scored: {_why(failed[0])}"
    if image.n_faces_detected is not None and image.n_faces_detected > len(faces):
        return (
            f"{len(faces)} of {image.n_faces_detected} detected faces scored; the settings leave out the rest"
        )
    return image.status_detail


def _why(face: FaceVerdict) -> str:
    """Why a face was not scored, in words."""
    if face.status is Status.JUDGE_FAILED:
        return "MIDS failed on it"
    malformed = [judged.answer for judged in face.answers if judged.answer.fields is None]
    return "; ".join(f"the answer to {a.question} is malformed ({a.finish_reason})" for a in malformed)
