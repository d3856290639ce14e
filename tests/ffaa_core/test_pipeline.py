"""The steps from bytes to a verdict: every error on one image becomes its status, and faces keep to their
image.
"""

import asyncio
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from ffaa_core import faces as faces_module
from ffaa_core.answers import Answer, Determination, Fields
from ffaa_core.engine.base import Crop, EngineFigures, Generation
from ffaa_core.pipeline import PendingFace, PendingImage, answer, conclude, examine
from ffaa_core.questions import Question
from ffaa_core.settings import AnswerSettings, DecodeSettings, FaceSettings, ScoringSettings
from ffaa_core.verdict import Status
from tests.images import png

ASTRONAUT = png(data.astronaut())
WHOLE = ScoringSettings(faces=FaceSettings(mode="whole_image"))
FIELDS = Fields(description="d", reasoning="r", result=Determination.REAL, probability=0.5, forgery_type=None)


def test_a_photograph_is_examined_to_its_faces() -> None:
    pending = examine(ASTRONAUT, ScoringSettings())
    assert len(pending.faces) == pending.image.n_faces_detected == 1
    assert (pending.image.width, pending.image.height, pending.image.format) == (512, 512, "PNG")
    assert pending.image.image_bytes == len(ASTRONAUT)
    assert not pending.faces[0].answered


@pytest.mark.parametrize(
    ("image", "settings", "status", "detail"),
    [
        (b"text", ScoringSettings(), Status.DECODE_FAILED, "plain text"),
        (ASTRONAUT[:5000], ScoringSettings(), Status.DECODE_FAILED, "cut off"),
        (
            ASTRONAUT,
            ScoringSettings(decode=DecodeSettings(max_pixels=100)),
            Status.TOO_LARGE,
            "the limit is 100",
        ),
        (ASTRONAUT, ScoringSettings(decode=DecodeSettings(max_bytes=100)), Status.TOO_LARGE, "100"),
    ],
)
def test_what_cannot_be_examined_has_a_status_and_a_reason(
    image: bytes, settings: ScoringSettings, status: Status, detail: str
) -> None:
    pending = examine(image, settings)
    assert pending.image.status is status
    assert detail in (pending.image.status_detail or "")
    assert pending.faces == ()


def test_an_image_without_a_face_is_final() -> None:
    sky = io.BytesIO()
    Image.new("RGB", (300, 300), "skyblue").save(sky, "PNG")
    pending = examine(sky.getvalue(), ScoringSettings())
    assert (pending.image.status, pending.image.n_faces) == (Status.NO_FACE, 0)


def test_a_detector_that_fails_costs_the_image_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("dlib gave up")

    monkeypatch.setattr(faces_module, "find_faces", fail)
    pending = examine(ASTRONAUT, ScoringSettings())
    assert (pending.image.status, pending.image.status_detail) == (
        Status.CRASHED,
        "RuntimeError: dlib gave up",
    )


def test_a_lack_of_memory_is_told_for_it_may_not_be_the_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(faces_module, "find_faces", fail)
    with pytest.raises(MemoryError):
        examine(ASTRONAUT, ScoringSettings())


class CountingEngine:
    """Answers well, and notes how many faces it is asked about at once."""

    def __init__(self) -> None:
        self.asking: dict[str, int] = {}
        self.most_faces = 0

    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        self.asking[crop_sha256] = self.asking.get(crop_sha256, 0) + 1
        self.most_faces = max(self.most_faces, sum(count > 0 for count in self.asking.values()))
        await asyncio.sleep(0.01)
        self.asking[crop_sha256] -= 1
        return Generation(
            text=replace(FIELDS, description=crop_sha256[:6]).render(),
            finish_reason="stop",
            prompt_tokens=1,
            cached_tokens=0,
            generated_tokens=1,
            token_ids=(),
        )

    def figures(self) -> EngineFigures:
        return EngineFigures()

    async def close(self) -> None:
        pass


def image_of(*shades: int) -> PendingImage:
    """An image whose faces are of these shades."""
    faces = [face_of(shade) for shade in shades]
    return PendingImage(image=examine(png_of(0), WHOLE).image, faces=tuple(faces))


def face_of(shade: int) -> PendingFace:
    (face,) = examine(png_of(shade), WHOLE).faces
    return face


def png_of(shade: int) -> bytes:
    return png(np.full((336, 336, 3), shade, np.uint8))


async def test_every_face_gets_three_answers_about_itself_within_the_room() -> None:
    engine, room = CountingEngine(), asyncio.Semaphore(2)
    pending = await answer(image_of(1, 2, 3, 4, 5), engine, AnswerSettings(), room)
    assert engine.most_faces == 2
    for face in pending.faces:
        assert [a.question for a in face.answers] == list(Question)
        assert {a.fields.description for a in face.answers if a.fields} == {face.face.crop_sha256[:6]}
        assert face.answered


class ShadeJudge:
    """Doubts a face by its shade, and fails on shade 13."""

    def logits(self, crops: list[Crop], masked_answers: list[list[str]]) -> list[Any]:
        return [
            None if crop[0, 0, 0] == 13 else np.array([[crop[0, 0, 0] / 10, 0.0, 1.0, 0.0]] * len(answers))
            for crop, answers in zip(crops, masked_answers, strict=True)
        ]


def answered(image: PendingImage, malformed: int | None = None) -> PendingImage:
    """The image with well-formed answers, but a malformed one for the face at `malformed`."""
    return replace(
        image,
        faces=tuple(
            replace(
                face,
                answers=tuple(
                    Answer(
                        question=question,
                        text="",
                        fields=None if number == malformed and question is Question.OPEN else FIELDS,
                        finish_reason="stop",
                    )
                    for question in Question
                ),
            )
            for number, face in enumerate(image.faces)
        ),
    )


def test_faces_judged_together_keep_to_their_images() -> None:
    judge: Any = ShadeJudge()
    broken = examine(b"text", WHOLE)
    verdicts = conclude(
        [answered(image_of(20, 5)), broken, answered(image_of(5)), answered(image_of(20))], judge
    )
    contested = [[face.contested for face in verdict.faces] for verdict in verdicts]
    assert contested == [[False, True], [], [True], [False]]
    assert verdicts[1] == broken.image


def test_a_malformed_answer_or_a_failing_judge_fails_its_face_only() -> None:
    judge: Any = ShadeJudge()
    (verdict,) = conclude([answered(image_of(20, 13, 20), malformed=2)], judge)
    assert [face.status for face in verdict.faces] == [
        Status.SCORED,
        Status.JUDGE_FAILED,
        Status.ANSWER_FAILED,
    ]
    assert verdict.status is Status.JUDGE_FAILED
    assert verdict.verdict is None
    assert len(verdict.faces[2].answers) == 3


def test_of_answers_that_read_the_same_the_order_decides_and_not_noise() -> None:
    class NoisyJudge:
        def logits(self, crops: list[Crop], masked_answers: list[list[str]]) -> list[Any]:
            return [np.array([[1.0, 0, 0, 0], [1.0, 0, 0, 0], [1.0 + 1e-6, 0, 0, 0]]) for _ in crops]

    judge: Any = NoisyJudge()
    (verdict,) = conclude([answered(image_of(20))], judge)
    (face,) = verdict.faces
    assert face.chosen is Question.OPEN
    assert len({of.match_score for of in face.answers}) == 1
