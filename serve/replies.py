"""The reply to a scored image: the row of the verdict table as JSON, in three degrees of detail."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ffaa_core.answers import Determination, ForgeryType
from ffaa_core.questions import Question
from ffaa_core.rows import to_row
from ffaa_core.verdict import Difficulty, ImageVerdict, Status

FINGERPRINT_HEADER = "FFAA-Fingerprint"


class Detail(StrEnum):
    """How much of a verdict is told."""

    VERDICT = "verdict"
    ANSWERS = "answers"
    FULL = "full"


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class BoxReply(_Reply):
    """A face's place in pixels of the image as it is shown, right and bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int


class AnswerReply(_Reply):
    """One of the three answers about a face; with `detail=full`, how it came about, too."""

    question: Question
    text: str
    result: Determination | None
    probability: float | None
    forgery_type: ForgeryType | None
    match_score: float | None
    class_probabilities: tuple[float, float, float, float] | None = None
    finish_reason: str | None = None
    attempts: int | None = None
    constrained: bool | None = None
    truncated: bool | None = None


class FaceReply(_Reply):
    """One face; `description` and `reasoning` are those of the answer that was chosen."""

    box: BoxReply
    detection_score: float | None
    status: Status
    crop_sha256: str
    verdict: Determination | None
    forgery_type: ForgeryType | None
    match_score: float | None
    forgery_score: float | None
    difficulty: Difficulty | None
    contested: bool | None
    chosen: Question | None
    description: str | None
    reasoning: str | None
    answers: list[AnswerReply] | None = Field(None, description="with detail=answers and detail=full")


class ScoreReply(_Reply):
    """The verdict on an image. It supports a decision; it does not make one.

    An image that cannot be scored has a reply, too: its `status` says why. `image_id` names the image in a
    conversation about it, for as long as the service remembers it; null where it has no faces. `warning` is
    what must be said with every verdict of these models.
    """

    image_id: str | None
    fingerprint: str
    warning: str | None
    image_sha256: str
    image_bytes: int
    width: int | None
    height: int | None
    format: str | None
    status: Status
    status_detail: str | None
    verdict: Determination | None
    forgery_score: float | None
    contested: bool | None
    n_faces_detected: int | None
    n_faces: int | None
    faces: list[FaceReply]


_IN_BRIEF = ("question", "text", "result", "probability", "forgery_type", "match_score")
_PICTURES = ("crop", "heatmap")


def score_reply(verdict: ImageVerdict, detail: Detail, **more: str | None) -> dict[str, Any]:
    """The content of a `ScoreReply`: the row, and `more` that the row does not have."""
    row = to_row(verdict)
    return more | row | {"faces": [_face(face, detail) for face in row["faces"]]}


def _face(face: dict[str, Any], detail: Detail) -> dict[str, Any]:
    told = {name: value for name, value in face.items() if name not in (*_PICTURES, "answers")}
    if detail is Detail.ANSWERS:
        told["answers"] = [{name: answer[name] for name in _IN_BRIEF} for answer in face["answers"]]
    elif detail is Detail.FULL:
        told["answers"] = face["answers"]
    return told


SMALL_IMAGE = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
"""A GIF of one pixel in base64, for examples of requests."""

EXAMPLE: dict[str, Any] = {
    "image_id": "3f1c9a52d7e84b06a1d5f0c2b7e69f48",
    "fingerprint": "b5f5a9c2d0e14f77",
    "warning": "this is the demo bundle, its weights are random: its verdicts mean nothing",
    "image_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "image_bytes": 204800,
    "width": 1024,
    "height": 768,
    "format": "JPEG",
    "status": "scored",
    "status_detail": "1 of 2 detected faces scored; the settings leave out the rest",
    "verdict": "fake",
    "forgery_score": 0.93,
    "contested": False,
    "n_faces_detected": 2,
    "n_faces": 1,
    "faces": [
        {
            "box": {"left": 312, "top": 120, "right": 604, "bottom": 412},
            "detection_score": 1.7,
            "status": "scored",
            "crop_sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
            "verdict": "fake",
            "forgery_type": "identity_exchange",
            "match_score": 0.93,
            "forgery_score": 0.93,
            "difficulty": "easy",
            "contested": False,
            "chosen": "open",
            "description": "A woman looks into the camera.",
            "reasoning": "The edge of the face is blurred where it meets the hair.",
        }
    ],
}
"""A reply as the documentation shows it."""
