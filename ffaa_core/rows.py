"""Image verdicts as rows of the verdict table, and back."""

from typing import Any

from ffaa_core.answers import Answer, Determination, Fields, ForgeryType
from ffaa_core.questions import Question
from ffaa_core.verdict import Box, Difficulty, FaceVerdict, ImageVerdict, JudgedAnswer, Status

_IMAGE_COLUMNS = (
    "image_sha256",
    "image_bytes",
    "width",
    "height",
    "format",
    "status",
    "status_detail",
    "verdict",
    "forgery_score",
    "contested",
    "n_faces_detected",
    "n_faces",
)
_FACE_COLUMNS = (
    "detection_score",
    "status",
    "crop_sha256",
    "verdict",
    "forgery_type",
    "match_score",
    "forgery_score",
    "difficulty",
    "contested",
    "chosen",
    "description",
    "reasoning",
    "crop",
    "heatmap",
)
_ANSWER_COLUMNS = ("question", "text", "finish_reason", "attempts", "constrained", "truncated")
_BOX_COLUMNS = ("left", "top", "right", "bottom")


def to_row(image: ImageVerdict) -> dict[str, Any]:
    """The columns of a row that the verdict fills; those of planning and writing are added by the job."""
    return _columns(image, _IMAGE_COLUMNS) | {"faces": [_face_to_row(face) for face in image.faces]}


def from_row(row: dict[str, Any]) -> ImageVerdict:
    """Read back what `to_row` wrote; further columns of the row are ignored."""
    return ImageVerdict(
        **_columns(row, _IMAGE_COLUMNS)
        | {
            "status": Status(row["status"]),
            "verdict": _optional(Determination, row["verdict"]),
            "faces": tuple(_face_from_row(face) for face in row["faces"] or ()),
        }
    )


def answer_to_row(answer: Answer) -> dict[str, Any]:
    """One answer as the row's struct, without what MIDS says of it."""
    fields = answer.fields
    return _columns(answer, _ANSWER_COLUMNS) | {
        "result": fields and fields.result,
        "probability": fields and fields.probability,
        "forgery_type": fields and fields.forgery_type,
    }


def answer_from_row(row: dict[str, Any]) -> Answer:
    """Read back what `answer_to_row` wrote."""
    fields = Fields.parse(row["text"]) if row["result"] is not None else None
    return Answer(
        **_columns(row, _ANSWER_COLUMNS) | {"question": Question(row["question"]), "fields": fields}
    )


def _face_to_row(face: FaceVerdict) -> dict[str, Any]:
    answers = [
        answer_to_row(judged.answer)
        | {"class_probabilities": judged.class_probabilities, "match_score": judged.match_score}
        for judged in face.answers
    ]
    return _columns(face, _FACE_COLUMNS) | {"box": _columns(face.box, _BOX_COLUMNS), "answers": answers}


def _face_from_row(row: dict[str, Any]) -> FaceVerdict:
    return FaceVerdict(
        **_columns(row, _FACE_COLUMNS)
        | {
            "box": Box(**row["box"]),
            "status": Status(row["status"]),
            "verdict": _optional(Determination, row["verdict"]),
            "forgery_type": _optional(ForgeryType, row["forgery_type"]),
            "difficulty": _optional(Difficulty, row["difficulty"]),
            "chosen": _optional(Question, row["chosen"]),
            "answers": tuple(_judged_from_row(answer) for answer in row["answers"] or ()),
        }
    )


def _judged_from_row(row: dict[str, Any]) -> JudgedAnswer:
    probabilities = row["class_probabilities"]
    return JudgedAnswer(
        answer=answer_from_row(row),
        class_probabilities=tuple(probabilities) if probabilities is not None else None,
        match_score=row["match_score"],
    )


def _columns(source: Any, names: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(source, dict):
        return {name: source[name] for name in names}
    return {name: getattr(source, name) for name in names}


def _optional(kind: Any, value: str | None) -> Any:
    return None if value is None else kind(value)
