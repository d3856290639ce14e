"""Verdicts as rows and back."""

from dataclasses import replace

import pyarrow as pa

from ffaa_core.answers import Answer, Determination, Fields, ForgeryType
from ffaa_core.questions import Question
from ffaa_core.rows import answer_from_row, answer_to_row, from_row, to_row
from ffaa_core.table.schema import ROW_SCHEMA
from ffaa_core.verdict import Box, FaceVerdict, ImageVerdict, JudgedAnswer, Status, judge, roll_up

FIELDS = Fields(
    description="A woman.\nShe smiles.",
    reasoning="Seams.",
    result=Determination.FAKE,
    probability=0.93,
    forgery_type=ForgeryType.ENTIRE_FACE_SYNTHESIS,
)
GOOD = Answer(
    question=Question.OPEN,
    text=FIELDS.render(),
    fields=FIELDS,
    finish_reason="stop",
    attempts=2,
    constrained=True,
)
CUT = Answer(question=Question.OPEN, text="Image desc", fields=None, finish_reason="length", truncated=True)
FACE = FaceVerdict(
    box=Box(left=-3, top=0, right=90, bottom=80),
    detection_score=0.7,
    status=Status.ANSWER_FAILED,
    crop_sha256="ab",
)
IMAGE = ImageVerdict(
    image_sha256="cd",
    image_bytes=9,
    status=Status.CRASHED,
    width=90,
    height=80,
    format="JPEG",
    n_faces_detected=2,
)


def image() -> ImageVerdict:
    """One face scored, with a crop; one failed for a cut answer."""
    answers = [replace(GOOD, question=question) for question in Question]
    scored = replace(judge(FACE, answers, [[0.1, 0.2, 0.3, 0.4]] * 3), crop=b"png")
    failed = replace(FACE, answers=tuple(JudgedAnswer(answer=replace(CUT, question=q)) for q in Question))
    return roll_up(IMAGE, [scored, failed])


def test_a_verdict_is_read_back_as_it_was() -> None:
    assert from_row(to_row(image())) == image()


def test_a_verdict_survives_arrow() -> None:
    fields = [field for field in ROW_SCHEMA if field.name in to_row(image())]
    table = pa.Table.from_pylist([to_row(image())], pa.schema(fields))
    assert from_row(table.to_pylist()[0]) == image()


def test_an_image_that_was_never_read_survives_too() -> None:
    gone = ImageVerdict(
        image_sha256=None, image_bytes=None, status=Status.GONE, status_detail="it is no more"
    )
    assert from_row(to_row(gone)) == gone
    assert from_row(to_row(gone) | {"faces": None}) == gone


def test_a_malformed_answer_keeps_its_text_and_has_no_fields() -> None:
    row = answer_to_row(CUT)
    assert (row["text"], row["result"], row["probability"]) == ("Image desc", None, None)
    assert answer_from_row(row) == CUT


def test_rows_name_no_column_that_the_schema_lacks() -> None:
    assert set(to_row(image())) <= set(ROW_SCHEMA.names)
