"""A shard as one Arrow block, and back."""

import pyarrow as pa
import pytest
from skimage import data

from ffaa_core.answers import Answer, Determination, Fields
from ffaa_core.errors import TornShardError
from ffaa_core.pipeline import PendingFace, PendingImage, examine
from ffaa_core.questions import Question
from ffaa_core.settings import ScoringSettings
from ffaa_core.verdict import ImageVerdict, Status
from ray_jobs.score.blocks import ShardImage, from_block, to_block, work_of
from tests.images import png

FIELDS = Fields(
    description="A.", reasoning="B.", result=Determination.REAL, probability=0.5, forgery_type=None
)
WORK = {"requests": 3, "seconds": 1.5, "environment": {"dtype": "float32"}}


def shard_images() -> list[ShardImage]:
    """One image with an answered face, one that is gone, one with a malformed answer."""
    examined = examine(png(data.astronaut()), ScoringSettings())
    (face,) = examined.faces
    good = tuple(
        Answer(question=question, text=FIELDS.render(), fields=FIELDS, finish_reason="stop")
        for question in Question
    )
    malformed = Answer(
        question=Question.OPEN, text="?", fields=None, finish_reason="length", attempts=2, constrained=True
    )
    gone = ImageVerdict(image_sha256=None, image_bytes=None, status=Status.GONE, status_detail="no more")
    pending = [
        PendingImage(image=examined.image, faces=(PendingFace(face=face.face, answers=good),)),
        PendingImage(image=gone),
        PendingImage(
            image=examined.image, faces=(PendingFace(face=face.face, answers=(malformed, *good[1:])),)
        ),
    ]
    return [
        ShardImage(
            image_uri=f"s3://b/{number}.png",
            planned_version="v1" if number else None,
            image_version="v2",
            attempts=number + 1,
            pending=image,
        )
        for number, image in enumerate(pending)
    ]


def comparable(image: ShardImage) -> object:
    """The image with its crops as bytes, since arrays do not compare."""
    faces = [
        (
            face.face.box,
            face.face.detection_score,
            face.face.crop.tobytes(),
            face.face.crop_sha256,
            face.answers,
        )
        for face in image.pending.faces
    ]
    return image.plan_columns, image.pending.image, faces


def test_a_shard_comes_back_from_its_block_as_it_was() -> None:
    block = to_block(7, shard_images(), WORK)
    shard, images = from_block(block)
    assert shard == 7
    assert [comparable(image) for image in images] == [comparable(image) for image in shard_images()]
    assert work_of(block) == WORK


def test_crops_are_counted_in_the_blocks_size() -> None:
    assert to_block(0, shard_images(), WORK).nbytes > 2 * 336 * 336 * 3


def test_a_block_of_two_shards_is_refused() -> None:
    blocks = [to_block(shard, shard_images(), WORK) for shard in (1, 2)]
    with pytest.raises(TornShardError, match=r"shards \[1, 2\]"):
        from_block(pa.concat_tables(blocks))


def test_an_empty_block_is_refused() -> None:
    with pytest.raises(TornShardError, match="exactly one shard"):
        from_block(to_block(1, shard_images(), WORK).slice(0, 0))
