"""Reading committed rows: whole shards only, streamed, and `latest` without holding the rows."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext

import pyarrow as pa
import pyarrow.compute as pc

from ffaa_core.ahead import AHEAD
from ffaa_core.parquet import read_batches
from ffaa_core.storage import Store
from ffaa_core.table.data_files import read_commits
from ffaa_core.table.known import committed_known, fetched_known
from ffaa_core.table.records import Commit
from ffaa_core.table.run import Run
from ffaa_core.table.schema import ROW_SCHEMA
from ffaa_core.table.scratch import Scratch, scratch
from ffaa_core.verdict import TRANSIENT

ROWS_AHEAD = 4096
"""Whole rows that are read before they are wanted; each has some 10 KB."""


def read_known(store: Store, runs: Iterable[Run]) -> Iterator[pa.RecordBatch]:
    """Every committed row of closed runs, in `KNOWN_SCHEMA`; hardly any data file is read for it."""
    for run in runs:
        summary = run.summary()
        sha256 = summary.known_sha256 if summary else None
        with fetched_known(store, run.ordinal, sha256) if sha256 else nullcontext() as known:
            if known:
                yield from read_batches(known)
            else:  # it is of an older version, or damaged
                yield from committed_known(store, run.commits())


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
        for commit, batches in read_commits(store, commits, wanted + hidden, most):
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
    for commit, batches in read_commits(store, commits, ["image_uri", "status"]):
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
