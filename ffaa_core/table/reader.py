"""Reading committed rows: whole shards only, streamed, and `latest` without holding the rows."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext

import pyarrow as pa
import pyarrow.compute as pc

from ffaa_core.ahead import AHEAD, ahead
from ffaa_core.errors import CorruptTableError, NotFoundError
from ffaa_core.parquet import read_batches
from ffaa_core.storage import Store
from ffaa_core.table.records import Commit
from ffaa_core.table.run import Run
from ffaa_core.table.schema import ROW_SCHEMA
from ffaa_core.table.scratch import Scratch, scratch
from ffaa_core.verdict import TRANSIENT

ROWS_AHEAD = 4096
"""Whole rows that are read before they are wanted; each has some 10 KB."""


def read_commit(
    store: Store, commit: Commit, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of one committed shard, none of an abandoned one; little more is read than `columns`.

    A column may be a path into the nested ones, such as `faces.list.element.box`. Columns, and fields of
    columns read whole, that the file is too old to have are null.

    Raises:
        CorruptTableError: the data file is missing or damaged.
    """
    if commit.file is None:
        return
    wanted = ROW_SCHEMA.names if columns is None else columns
    try:
        file = store.open(commit.file)
    except NotFoundError as error:
        raise CorruptTableError(f"{error}, but shard {commit.shard} of run {commit.run} needs it") from error
    try:
        with closing(file):
            for batch in read_batches(file, columns=columns):
                yield _completed(batch, wanted)
    except (pa.ArrowException, OSError) as error:
        raise CorruptTableError(
            f"{store.uri_of(commit.file)} is damaged: {error}; `ffaa table verify {store.uri}` lists all "
            "damage"
        ) from error


def _completed(batch: pa.RecordBatch, wanted: Collection[str]) -> pa.RecordBatch:
    """The batch with what its file, of an older `SCHEMA_VERSION`, lacks of `ROW_SCHEMA`: as nulls."""
    for field in ROW_SCHEMA:
        if field.name not in wanted:
            continue
        index = batch.schema.get_field_index(field.name)
        if index < 0:
            batch = batch.append_column(field, pa.nulls(len(batch), field.type))
        elif batch.schema.field(index).type != field.type:
            batch = batch.set_column(index, field, batch.column(index).cast(field.type))
    return batch


def read_runs(store: Store, runs: Collection[Run], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """`columns` of every committed row of `runs`."""
    commits = (commit for run in runs for commit in run.commits())
    for _, batches in _read_commits(store, commits, columns):
        yield from batches


def _read_commits(
    store: Store, commits: Iterable[Commit], columns: Sequence[str], most: int = AHEAD
) -> Iterator[tuple[Commit, list[pa.RecordBatch]]]:
    """Each commit with its rows, as `read_commit`, of `most` commits at once.

    Small files on S3 take longer to open than to read.
    """

    def read(commit: Commit) -> tuple[Commit, list[pa.RecordBatch]]:
        return commit, list(read_commit(store, commit, columns))

    return ahead(read, commits, most)


def read_rows(
    store: Store,
    runs: Collection[Run],
    *,
    latest: bool,
    columns: Sequence[str] | None,
    statuses: Collection[str] | None,
    verdicts: Collection[str] | None,
) -> Iterator[pa.RecordBatch]:
    """Committed rows of `runs` as they were when the reading began; see `VerdictTable.rows`."""
    commits = [commit for run in runs for commit in run.commits()]
    fingerprints = {run.ordinal: run.fingerprint for run in runs}
    wanted = list(columns) if columns is not None else [field.name for field in ROW_SCHEMA]
    tops = {column.partition(".")[0] for column in wanted}
    hidden = [name for name in ("status", "verdict") if name not in tops]
    largest = max((commit.counts.images for commit in commits), default=1)
    most = min(AHEAD, max(1, ROWS_AHEAD // max(1, largest)))
    repeats = latest and len(set(fingerprints.values())) < len(fingerprints)
    with scratch() if repeats else nullcontext() as place:
        superseded = _superseded(place, store, commits, fingerprints) if place else None
        for commit, batches in _read_commits(store, commits, wanted + hidden, most):
            outdated = superseded(commit) if superseded else pa.array([], pa.int32())
            start = 0
            for batch in batches:
                numbers = pa.array(range(start, start + len(batch)), pa.int32())
                start += len(batch)
                keep = pc.invert(pc.is_in(numbers, outdated))
                if statuses is not None:
                    keep = pc.and_(keep, pc.is_in(batch["status"], pa.array(sorted(statuses), pa.string())))
                if verdicts is not None:
                    keep = pc.and_(keep, pc.is_in(batch["verdict"], pa.array(sorted(verdicts), pa.string())))
                kept = batch.drop_columns(hidden).filter(keep) if hidden else batch.filter(keep)
                if len(kept):
                    yield kept


def _superseded(
    place: Scratch, store: Store, commits: Sequence[Commit], fingerprints: dict[int, str]
) -> Callable[[Commit], pa.Array]:
    """A function from a commit to the positions of its rows that are not the latest of their image."""
    place.run(
        "CREATE TABLE keys (fingerprint VARCHAR, image_uri VARCHAR, settled BOOLEAN, run INTEGER, "
        "shard INTEGER, position INTEGER)"
    )
    place.fill("keys", _keys(store, commits, fingerprints))
    place.run(
        "CREATE TABLE superseded AS SELECT run, shard, position FROM keys QUALIFY row_number() OVER "
        "(PARTITION BY fingerprint, image_uri ORDER BY settled DESC, run DESC) > 1"
    )

    def positions(commit: Commit) -> pa.Array:
        batches = place.query(
            "SELECT position FROM superseded WHERE run = $run AND shard = $shard",
            {"run": commit.run, "shard": commit.shard},
        )
        return pa.concat_arrays([pa.array([], pa.int32()), *(batch["position"] for batch in batches)])

    return positions


def _keys(store: Store, commits: Sequence[Commit], fingerprints: dict[int, str]) -> Iterator[pa.RecordBatch]:
    """What tells which rows of an image count, and where each of them lies."""
    transient = pa.array(sorted(TRANSIENT), pa.string())
    for commit, batches in _read_commits(store, commits, ["image_uri", "status"]):
        start = 0
        for batch in batches:
            yield pa.record_batch(
                {
                    "fingerprint": pa.repeat(fingerprints[commit.run], len(batch)),
                    "image_uri": batch["image_uri"],
                    "settled": pc.invert(pc.is_in(batch["status"], transient)),
                    "run": pa.repeat(commit.run, len(batch)),
                    "shard": pa.repeat(commit.shard, len(batch)),
                    "position": pa.array(range(start, start + len(batch)), pa.int32()),
                }
            )
            start += len(batch)
