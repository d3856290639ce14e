"""Proving a table: every digest, count and key of what is committed, run by run."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from ffaa_core.errors import CorruptTableError, NotFoundError, TableError
from ffaa_core.parquet import read_table
from ffaa_core.table import layout
from ffaa_core.table.commit import check_rows, count
from ffaa_core.table.known import fetched_known
from ffaa_core.table.records import Commit, Counts, Summary
from ffaa_core.table.run import Run
from ffaa_core.table.sealed import begun_ordinals, lost_seal
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
    by status and verdict); rows and planned images, one by one; a closed run's manifest, summary and known
    rows. Files that no marker names are nobody's rows and no problem.
    """
    ordinals = begun_ordinals(table.store)
    for ordinal in ordinals:
        try:
            run = Run.load(table.store, ordinal)
        except NotFoundError as error:
            problem = lost_seal(table.store, ordinal) or (str(error) if ordinal != ordinals[-1] else None)
            if problem:
                yield Finding(text=f"run {ordinal}: {problem}", problem=True)
        except TableError as error:
            yield Finding(text=f"run {ordinal}: {error}", problem=True)
        else:
            yield from _findings(table, run, is_last=ordinal == ordinals[-1])


def _findings(table: VerdictTable, run: Run, *, is_last: bool) -> Iterator[Finding]:
    clean = True
    for problem in _problems(table, run, is_last=is_last):
        clean = False
        yield Finding(text=f"run {run.ordinal}: {problem}", problem=True)
    if clean:
        planned = f"{run.n_images} images in {run.n_shards} shards"
        yield Finding(text=f"run {run.ordinal}: {planned}, {_state(run)}", problem=False)


def _state(run: Run) -> str:
    commits = list(run.commits())
    parts = []
    if n_open := run.n_shards - len(commits):
        parts.append(f"open, {n_open} of its shards are not committed yet")
    elif run.summary() is None:
        parts.append("open, no shard is left to do but nobody has closed it yet")
    if n_abandoned := sum(commit.file is None for commit in commits):
        parts.append(f"{n_abandoned} of its shards were abandoned and have no rows")
    return ", ".join(parts) or "every shard committed"


def _problems(table: VerdictTable, run: Run, *, is_last: bool) -> Iterator[str]:
    """Each part on its own, so that one problem hides no other."""
    commits: list[Commit] = []
    marked: set[int] = set()
    try:
        summary = run.summary()  # before the markers: what was closed then has them all
    except CorruptTableError as error:
        summary = None
        yield str(error)
    else:
        if summary is None and not is_last:
            yield f"{layout.summary(run.ordinal)} is missing, but another run followed"
    yield from _plan_problems(run)
    for key, data in run.marker_files():
        try:
            marked.add(layout.shard_of(key))
            commits.append(run.marker(key, data))
        except CorruptTableError as error:
            yield str(error)
        else:
            yield from _commit_problems(table, run, commits[-1])
    if summary:
        if missing := sorted(set(range(run.n_shards)) - marked):
            yield f"it is closed, but shards {missing} are not committed"
        yield from _close_problems(run, summary, commits)
        yield from _known_problems(table, run, summary)


def _plan_problems(run: Run) -> Iterator[str]:
    n_images = next_shard = 0
    last_uri = ""
    for part in run.plan.parts:
        try:
            rows = run.plan_part(part)
        except CorruptTableError as error:
            yield str(error)
            next_shard, n_images = next_shard + part.n_shards, n_images + part.n_images
            continue
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
    if commit.shard >= run.n_shards:
        yield f"{where} is committed, but the last shard is {run.n_shards - 1}"
        return
    if commit.file is None:
        if commit.counts != Counts.total(()):
            yield f"shard {commit.shard} was abandoned, but its marker counts {commit.counts}"
        return
    try:
        with table.store.open(commit.file) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.seek(0, os.SEEK_END)
            if (sha256, size) != (commit.sha256, commit.size_bytes):
                found, named = f"{size} bytes, sha256 {sha256}", f"{commit.size_bytes}, {commit.sha256}"
                yield f"{where} is not the file that was committed: it has {found}, the marker says {named}"
                return
            file.seek(0)
            rows = read_table(file, columns=CHECKED_COLUMNS)
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


def _close_problems(run: Run, summary: Summary, commits: list[Commit]) -> Iterator[str]:
    """Manifest and summary against each other, and the manifest against the markers that can be read."""
    try:
        manifest = {commit.shard: commit for commit in run.commits()}
    except CorruptTableError as error:
        yield str(error)
        return
    if len(manifest) != run.n_shards or any(manifest.get(commit.shard) != commit for commit in commits):
        yield "its manifest and its commit markers differ"
    if Counts.total(commit.counts for commit in manifest.values()) != summary.counts:
        yield "its summary counts otherwise than its manifest"
    if not summary.abandoned and any(commit.file is None for commit in manifest.values()):
        yield f"shards of it were abandoned, but its summary says that it ended with {summary.exit_code}"


def _known_problems(table: VerdictTable, run: Run, summary: Summary) -> Iterator[str]:
    if summary.known_sha256 is None:
        return
    name = layout.known(run.ordinal, summary.known_sha256)
    with fetched_known(table.store, run.ordinal, summary.known_sha256) as file:
        if file is None:
            yield f"{name} is missing or damaged: planning takes longer, for it reads the data files instead"
        elif (n_rows := pq.read_metadata(file).num_rows) != summary.counts.images:
            yield f"{name} holds {n_rows} images, the summary counts {summary.counts.images}"
