"""Proving a table: every digest, count and key of what is committed, run by run."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ffaa_core.errors import CorruptTableError, NotFoundError, TableError
from ffaa_core.table.commit import check_rows, count
from ffaa_core.table.records import Commit, Counts
from ffaa_core.table.run import Run
from ffaa_core.table.verdict_table import VerdictTable

CHECKED_COLUMNS = [
    "image_uri",
    "planned_version",
    "status",
    "attempts",
    "verdict",
    "contested",
    "n_faces",
    "run",
    "fingerprint",
    "shard",
]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at: `text` says what, and what is wrong with it if `problem`."""

    text: str
    problem: bool


def verify(table: VerdictTable) -> Iterator[Finding]:
    """Check every run in turn, yielding each problem as it is found and a line that is none for a clean run.

    Held against each other: the plan's parts and the seal; commit markers and data files (size, sha256, rows
    by status and verdict); rows and planned images, one by one; a closed run's manifest and summary.
    Files that no marker names are nobody's rows and no problem.
    """
    for run in table.runs():
        clean = True
        for problem in _problems(table, run):
            clean = False
            yield Finding(text=f"run {run.ordinal}: {problem}", problem=True)
        if clean:
            n_open = len(run.open_shards())
            state = (
                f"open, {n_open} of its shards are not committed yet" if n_open else "every shard committed"
            )
            yield Finding(
                text=f"run {run.ordinal}: {run.n_images} images in {run.n_shards} shards, {state}",
                problem=False,
            )


def _problems(table: VerdictTable, run: Run) -> Iterator[str]:
    try:
        yield from _plan_problems(run)
        commits = []
        for commit in run.markers():
            commits.append(commit)
            yield from _commit_problems(table, run, commit)
        yield from _close_problems(table, run, commits)
    except (TableError, NotFoundError) as error:
        yield str(error)


def _plan_problems(run: Run) -> Iterator[str]:
    n_images = next_shard = 0
    last_uri = ""
    for part in run.plan.parts:
        rows = run.plan_part(part)
        shards = rows["shard"].to_pylist()
        if sorted(set(shards)) != list(range(next_shard, next_shard + part.n_shards)) or shards != sorted(
            shards
        ):
            yield f"{part.file} does not hold the {part.n_shards} shards from {next_shard} on"
        if len(rows) != part.n_images:
            yield f"{part.file} holds {len(rows)} images, sealed are {part.n_images}"
        for uri in rows["image_uri"].to_pylist():
            if uri <= last_uri:
                yield f"{part.file} plans {uri!r} twice or out of order"
            last_uri = uri
        next_shard, n_images = next_shard + part.n_shards, n_images + len(rows)
    if (next_shard, n_images) != (run.n_shards, run.n_images):
        held = f"{n_images} images in {next_shard} shards"
        yield f"its parts hold {held}, sealed are {run.n_images} in {run.n_shards}"


def _commit_problems(table: VerdictTable, run: Run, commit: Commit) -> Iterator[str]:
    where = f"shard {commit.shard} ({commit.file})"
    if commit.run != run.ordinal or not 0 <= commit.shard < run.n_shards:
        yield f"{where} has a marker that says shard {commit.shard} of run {commit.run}"
        return
    try:
        with table.store.open(commit.file) as file:
            sha256, size = _digest(file)
            if (sha256, size) != (commit.sha256, commit.size_bytes):
                found, named = f"{size} bytes, sha256 {sha256}", f"{commit.size_bytes}, {commit.sha256}"
                yield f"{where} is not the file that was committed: it has {found}, the marker says {named}"
                return
            file.seek(0)
            rows = pq.ParquetFile(file, pre_buffer=True).read(columns=CHECKED_COLUMNS)
    except NotFoundError:
        yield f"{where} is missing"
        return
    except (pa.ArrowException, OSError) as error:
        yield f"{where} cannot be read: {error}"
        return
    try:
        check_rows(
            rows,
            run.plan_rows(commit.shard),
            run=run.ordinal,
            fingerprint=run.fingerprint,
            shard=commit.shard,
        )
    except CorruptTableError:
        return  # the plan part was told of already
    except TableError as error:
        yield str(error)
    if count(rows) != commit.counts:
        yield f"{where} counts {count(rows)}, its marker says {commit.counts}"


def _close_problems(table: VerdictTable, run: Run, commits: list[Commit]) -> Iterator[str]:
    summary = run.summary()
    if summary is None:
        return
    if missing := run.open_shards():
        yield f"it is closed, but shards {missing} are not committed"
    if list(run.commits()) != commits:
        yield "its manifest and its commit markers differ"
    if Counts.total(commit.counts for commit in commits) != summary.counts:
        yield "its summary counts otherwise than its commits"


def _digest(file: BinaryIO) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while block := file.read(8 << 20):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size
