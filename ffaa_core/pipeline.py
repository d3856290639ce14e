"""The three steps from an image's bytes to its verdict. Every door goes through these and nothing else.

`examine` decodes and crops, `answer` asks the three questions of every face, `conclude` lets MIDS judge and
rolls the faces up; `to_judge` and `complete` are its halves, for doors whose MIDS is in another process. Each
turns an error on one image into that image's status.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ffaa_core.answering import FAILED, ask
from ffaa_core.answers import Answer
from ffaa_core.engine.base import AnswerEngine
from ffaa_core.errors import DecodeError, TooLargeError
from ffaa_core.questions import Question
from ffaa_core.settings import AnswerSettings, ScoringSettings
from ffaa_core.verdict import FaceVerdict, ImageVerdict, JudgedAnswer, Status, judge, roll_up

if TYPE_CHECKING:
    from ffaa_core.faces import Face

Logits = NDArray[np.float64]
Crop = NDArray[np.uint8]


class FaceJudge(Protocol):
    """What says how well answers fit a face: `ffaa_core.mids.Judge`, or something around it."""

    def logits(self, crops: Sequence[Crop], masked_answers: Sequence[Sequence[str]]) -> list[Logits | None]:
        """As `ffaa_core.mids.Judge.logits`."""
        ...


@dataclass(frozen=True, kw_only=True)
class PendingFace:
    """A face on its way to a verdict; `answers` is empty until it was asked about."""

    face: "Face"
    answers: tuple[Answer, ...] = ()

    @property
    def answered(self) -> bool:
        """Whether it has its three well-formed answers."""
        return bool(self.answers) and all(answer.fields for answer in self.answers)


@dataclass(frozen=True, kw_only=True)
class PendingImage:
    """An image on its way to a verdict. Without faces, `image` is final."""

    image: ImageVerdict
    faces: tuple[PendingFace, ...] = ()

    def with_answers(self, answers: Iterable[tuple[Answer, ...]]) -> "PendingImage":
        """The same with each face's answers, in the order of its faces."""
        faces = zip(self.faces, answers, strict=True)
        return replace(self, faces=tuple(replace(face, answers=given) for face, given in faces))


def examine(data: bytes, settings: ScoringSettings) -> PendingImage:
    """Decode an image within the limits and cut out its faces; the doors have `Examiner` do it.

    Raises:
        MemoryError: there is not enough memory, which may be the image's fault or not.
    """
    from ffaa_core.decoding import decode
    from ffaa_core.faces import find_faces

    image = ImageVerdict(
        image_sha256=hashlib.sha256(data).hexdigest(), image_bytes=len(data), status=Status.CRASHED
    )
    try:
        decoded = decode(data, settings.decode, exif_orientation=settings.faces.mode != "published")
        image = replace(image, width=decoded.width, height=decoded.height, format=decoded.format)
        found = find_faces(decoded, settings.faces)
    except TooLargeError as error:
        return PendingImage(image=replace(image, status=Status.TOO_LARGE, status_detail=str(error)))
    except DecodeError as error:
        return PendingImage(image=replace(image, status=Status.DECODE_FAILED, status_detail=str(error)))
    except MemoryError:
        raise
    except Exception as error:  # whatever an image does to the detector must cost that image only
        return PendingImage(image=replace(image, status_detail=f"{type(error).__name__}: {error}"))
    image = replace(image, n_faces_detected=found.n_detected)
    if not found.faces:
        return PendingImage(image=roll_up(image, ()))
    return PendingImage(image=image, faces=tuple(PendingFace(face=face) for face in found.faces))


async def answer(
    pending: PendingImage,
    engine: AnswerEngine,
    settings: AnswerSettings,
    room: AbstractAsyncContextManager[None],
) -> PendingImage:
    """Ask the three questions of every face; `room` bounds the faces asked about at once.

    Raises:
        EngineDeadError: the engine is gone; the caller gives the image to another.
    """

    async def ask_about(face: PendingFace) -> tuple[Answer, ...]:
        async with room:
            return await ask(engine, face.face.crop, face.face.crop_sha256, settings)

    return pending.with_answers(await asyncio.gather(*map(ask_about, pending.faces)))


def without_answers(pending: PendingImage, why: str) -> PendingImage:
    """The image as if the engine had refused every question about it."""
    answers = tuple(
        Answer(question=question, text="", fields=None, finish_reason=f"{FAILED}: {why}")
        for question in Question
    )
    return pending.with_answers([answers] * len(pending.faces))


def conclude(images: Sequence[PendingImage], judge_network: FaceJudge) -> list[ImageVerdict]:
    """Judge the answered faces of all `images` together and complete each image."""
    crops, masked_answers = to_judge(images)
    return complete(images, judge_network.logits(crops, masked_answers) if crops else [])


def to_judge(images: Sequence[PendingImage]) -> tuple[list[Crop], list[list[str]]]:
    """What a `FaceJudge` is asked about `images`: their answered faces' crops and masked answers."""
    ready = [face for image in images for face in image.faces if face.answered]
    masked = [[a.fields.masked() for a in face.answers if a.fields] for face in ready]
    return [face.face.crop for face in ready], masked


def complete(images: Sequence[PendingImage], logits: Sequence[Logits | None]) -> list[ImageVerdict]:
    """The verdicts on `images`, given what a `FaceJudge` said when asked `to_judge(images)`."""
    of_faces = iter(logits)
    return [_conclude_image(image, of_faces) for image in images]


def _conclude_image(pending: PendingImage, logits: Iterator[Logits | None]) -> ImageVerdict:
    if not pending.faces:
        return pending.image
    return roll_up(
        pending.image,
        [_conclude_face(face, next(logits) if face.answered else None) for face in pending.faces],
    )


def _conclude_face(pending: PendingFace, logits: Logits | None) -> FaceVerdict:
    face = FaceVerdict(
        box=pending.face.box,
        detection_score=pending.face.detection_score,
        status=Status.JUDGE_FAILED if pending.answered else Status.ANSWER_FAILED,
        crop_sha256=pending.face.crop_sha256,
        answers=tuple(JudgedAnswer(answer=answer) for answer in pending.answers),
    )
    if logits is None:
        return face
    # MIDS reads nothing of an answer but its masked text: for equal texts only noise could tell two apart.
    masked = [answer.fields and answer.fields.masked() for answer in pending.answers]
    return judge(face, pending.answers, [logits[masked.index(text)].tolist() for text in masked])
