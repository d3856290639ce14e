"""One shard on its way through the stages: one Arrow block, one row an image, its faces nested in the row.

Crops travel as raw pixels, so that Ray accounts for their memory and nobody encodes them twice.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ffaa_core.errors import TornShardError
from ffaa_core.faces import Face
from ffaa_core.pipeline import PendingFace, PendingImage
from ffaa_core.rows import answer_from_row, answer_to_row, from_row, to_row
from ffaa_core.settings import CROP_SIZE
from ffaa_core.table.schema import ANSWER, BOX, ROW_SCHEMA
from ffaa_core.verdict import Box

_FACE = pa.struct(
    [
        pa.field("box", BOX),
        pa.field("detection_score", pa.float64()),
        pa.field("crop_sha256", pa.string()),
        pa.field("pixels", pa.large_binary()),
        pa.field("answers", pa.list_(ANSWER)),
    ]
)
WORK = b"ffaa.work"
_ADDED_LATER = ("run", "fingerprint", "scored_at", "faces")
BLOCK_SCHEMA = pa.schema(
    [field for field in ROW_SCHEMA if field.name not in _ADDED_LATER] + [pa.field("pending", pa.list_(_FACE))]
)


@dataclass(frozen=True, kw_only=True)
class ShardImage:
    """A planned image of a shard, the version of it that was read, and how far it has come."""

    image_uri: str
    planned_version: str | None
    image_version: str | None
    attempts: int
    pending: PendingImage

    @property
    def plan_columns(self) -> dict[str, Any]:
        """The columns of its row that come from the plan and the fetch."""
        return {
            "image_uri": self.image_uri,
            "planned_version": self.planned_version,
            "image_version": self.image_version,
            "attempts": self.attempts,
        }


def to_block(shard: int, images: Sequence[ShardImage], work: dict[str, Any]) -> pa.Table:
    """One shard as one block; `work`, JSON-ready, says what was done for it and travels as metadata."""
    rows = [
        to_row(image.pending.image)
        | image.plan_columns
        | {"shard": shard, "pending": [_face_to_row(face) for face in image.pending.faces]}
        for image in images
    ]
    metadata = {WORK: json.dumps(work)}
    return pa.Table.from_pylist(rows, BLOCK_SCHEMA.with_metadata(metadata))


def work_of(block: pa.Table) -> dict[str, Any]:
    """What was done for the shard so far: the engine's figures, and what it ran on."""
    return json.loads(block.schema.metadata[WORK])  # type: ignore[no-any-return]


def from_block(block: pa.Table) -> tuple[int, list[ShardImage]]:
    """The shard's number and its images.

    Raises:
        TornShardError: the block holds rows of no or of several shards.
    """
    rows = block.to_pylist()
    shards = {row["shard"] for row in rows}
    if len(shards) != 1:
        raise TornShardError(f"a block holds rows of shards {sorted(shards)}; it must hold exactly one shard")
    images = [
        ShardImage(
            image_uri=row["image_uri"],
            planned_version=row["planned_version"],
            image_version=row["image_version"],
            attempts=row["attempts"],
            pending=PendingImage(
                image=from_row(row | {"faces": None}),
                faces=tuple(_face_from_row(face) for face in row["pending"]),
            ),
        )
        for row in rows
    ]
    return shards.pop(), images


def _face_to_row(pending: PendingFace) -> dict[str, Any]:
    return {
        "box": asdict(pending.face.box),
        "detection_score": pending.face.detection_score,
        "crop_sha256": pending.face.crop_sha256,
        "pixels": pending.face.crop.tobytes(),
        "answers": [answer_to_row(answer) for answer in pending.answers],
    }


def _face_from_row(row: dict[str, Any]) -> PendingFace:
    crop = np.frombuffer(row["pixels"], np.uint8).reshape(CROP_SIZE, CROP_SIZE, 3)
    face = Face(
        box=Box(**row["box"]),
        detection_score=row["detection_score"],
        crop=crop,
        crop_sha256=row["crop_sha256"],
    )
    return PendingFace(face=face, answers=tuple(answer_from_row(answer) for answer in row["answers"]))
