"""Deleting files that nobody will ever read: those of writers who lost to another."""

from collections.abc import Iterator

from ffaa_core.errors import CorruptTableError
from ffaa_core.storage import ObjectInfo, Store
from ffaa_core.table import layout
from ffaa_core.table.run import Run
from ffaa_core.table.verdict_table import VerdictTable


def collect_garbage(table: VerdictTable, *, dry_run: bool = False) -> Iterator[ObjectInfo]:
    """Delete each data file whose shard has a commit that names another file or none, and yield it then.

    So, too, known rows of a run that its summary does not name. Safe beside any number of writers and
    readers. A shard without a commit keeps all its files, and a run without a summary its known rows: a
    writer may be about to name any of them. Files of other names are left alone.

    Args:
        dry_run: yield them only.

    Raises:
        CorruptTableError: a run lacks a file that it needs; nothing of that run is deleted.
    """
    for run in table.runs():
        for lost in [*_lost_files(table.store, run), *_lost_known(table.store, run)]:
            if not dry_run:
                table.store.delete(lost.key)
            yield lost


def _lost_files(store: Store, run: Run) -> list[ObjectInfo]:
    committed = {commit.shard: commit.file for commit in run.commits()}
    files = {info.key: info for info in store.list(layout.data_files(run.ordinal))}
    for shard, file in committed.items():
        if file is not None and (file not in files or layout.whose_data(file) != (run.ordinal, shard)):
            raise CorruptTableError(
                f"shard {shard} of run {run.ordinal} is committed as {file}, which is missing or another "
                f"shard's: nothing of this run is deleted; `ffaa table verify {store.uri}` lists all damage"
            )
    return [
        info
        for key, info in files.items()
        if (whose := layout.whose_data(key)) and whose[1] in committed and committed[whose[1]] != key
    ]


def _lost_known(store: Store, run: Run) -> list[ObjectInfo]:
    summary = run.summary()
    if summary is None:
        return []
    named = layout.known(run.ordinal, summary.known_sha256) if summary.known_sha256 else None
    files = store.list(layout.known_files(run.ordinal))
    return [info for info in files if layout.is_known(info.key) and info.key != named]
