"""From a listing of images to the plan of a run: what is not settled yet, in shards, written in parts."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from ffaa_core.storage import Store
from ffaa_core.table import layout
from ffaa_core.table.records import PlanPart
from ffaa_core.table.schema import PLAN_SCHEMA
from ffaa_core.table.scratch import BATCH, Scratch
from ffaa_core.verdict import MAX_ATTEMPTS, TRANSIENT, Status

SHARD_SIZE = 64
SHARD_BYTES = 256 << 20
SHARDS_PER_PART = 256

LISTED = pa.schema(
    [("image_uri", pa.string()), ("planned_version", pa.string()), ("size_bytes", pa.int64())],
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedImage:
    """One listed image. A version or size of None was not told by the listing; such a version matches any."""

    image_uri: str
    planned_version: str | None = None
    size_bytes: int | None = None


class Head:
    """The first `most` rows of some batches; `n_left` counts the others, once all was read."""

    def __init__(self, batches: Iterable[pa.RecordBatch], most: int | None) -> None:
        self._batches, self._most = batches, most
        self.n_left = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        room = self._most
        for batch in self._batches:
            taken = batch if room is None else batch.slice(0, room)
            self.n_left += len(batch) - len(taken)
            if room is not None:
                room -= len(taken)
            if len(taken):
                yield taken


@dataclass(frozen=True, kw_only=True)
class ShardLimits:
    """A shard holds at most `images` images and `bytes` bytes of them, but always one image."""

    images: int = SHARD_SIZE
    bytes: int = SHARD_BYTES


def load_listing(place: Scratch, images: Iterable[PlannedImage]) -> None:
    """Take in the whole listing, in batches."""
    place.run("CREATE TABLE listed (image_uri VARCHAR, planned_version VARCHAR, size_bytes BIGINT)")
    iterator = iter(images)
    while batch := list(islice(iterator, BATCH)):
        columns = [[getattr(image, name) for image in batch] for name in LISTED.names]
        place.insert("listed", pa.table(columns, schema=LISTED))


def load_known(place: Scratch, rows: Iterable[pa.RecordBatch]) -> None:
    """Take in what is committed under the fingerprint: batches in `KNOWN_SCHEMA`."""
    place.run(
        "CREATE OR REPLACE TABLE known (image_uri VARCHAR, planned_version VARCHAR, image_version VARCHAR, "
        "status VARCHAR, attempts INTEGER, run INTEGER)"
    )
    place.fill("known", rows)


def unsettled(place: Scratch, retry: Collection[Status] = ()) -> Iterator[pa.RecordBatch]:
    """The listed images to be scored, once each, sorted by URI, with the number of this attempt.

    Left out are those that a committed row settles at the listed version, and those tried `MAX_ATTEMPTS`
    times at it, unless their last status is in `retry`. `gone` settles nothing here: the image is listed
    (again).
    """
    return place.query(
        """
        WITH images AS (
            SELECT DISTINCT ON (image_uri) image_uri, planned_version, size_bytes FROM listed
        ), outcomes AS (
            SELECT image_uri, coalesce(image_version, planned_version) AS version, status, attempts, run,
                   NOT list_contains($transient, status) AS settled
            FROM known
        )
        SELECT images.image_uri, images.planned_version, images.size_bytes,
               CAST(coalesce(max(attempts), 0) + 1 AS INTEGER) AS attempts
        FROM images LEFT JOIN outcomes
            ON outcomes.image_uri = images.image_uri
            AND coalesce(outcomes.version = images.planned_version, true)
        GROUP BY images.image_uri, images.planned_version, images.size_bytes
        HAVING (coalesce(max(attempts), 0) < $most
                AND NOT coalesce(bool_or(settled AND status <> $gone), false))
            OR coalesce(list_contains($retry, arg_max(status, (settled, run))), false)
        ORDER BY images.image_uri
        """,
        {
            "transient": sorted(status.value for status in TRANSIENT),
            "gone": Status.GONE.value,
            "most": MAX_ATTEMPTS,
            "retry": sorted(status.value for status in retry),
        },
    )


def write_parts(
    store: Store, run: int, planner: str, images: Iterable[pa.RecordBatch], limits: ShardLimits
) -> tuple[PlanPart, ...]:
    """Cut images into shards and write them to plan parts that no other planner writes to."""
    parts: list[PlanPart] = []
    pending: list[pa.Table] = []

    def write() -> None:
        rows = pa.concat_tables(pending).select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        file = layout.plan_part(run, planner, len(parts))
        store.write(file, data)
        shards = rows["shard"]
        parts.append(
            PlanPart(
                file=file,
                sha256=hashlib.sha256(data).hexdigest(),
                first_shard=shards[0].as_py(),
                n_shards=shards[-1].as_py() - shards[0].as_py() + 1,
                n_images=len(rows),
            )
        )
        pending.clear()

    for piece in _numbered(images, limits):
        if pending and piece["shard"][0].as_py() // SHARDS_PER_PART > len(parts):
            write()
        pending.append(piece)
    if pending:
        write()
    return tuple(parts)


def _numbered(images: Iterable[pa.RecordBatch], limits: ShardLimits) -> Iterator[pa.Table]:
    """The images with the number of their shard, in pieces that lie within one plan part."""
    shard = n_images = n_bytes = 0
    for batch in images:
        shards = []
        for size in batch.column("size_bytes").to_pylist():
            size = size or 0
            if n_images and (n_images == limits.images or n_bytes + size > limits.bytes):
                shard, n_images, n_bytes = shard + 1, 0, 0
            n_images, n_bytes = n_images + 1, n_bytes + size
            shards.append(shard)
        table = pa.Table.from_batches([batch]).append_column("shard", pa.array(shards, pa.int32()))
        start = 0
        for end in range(1, len(shards) + 1):
            if end == len(shards) or shards[end] // SHARDS_PER_PART != shards[start] // SHARDS_PER_PART:
                yield table.slice(start, end - start)
                start = end
