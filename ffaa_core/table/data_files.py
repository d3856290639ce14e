"""Reading data files: the rows of committed shards, one shard or many at once."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from io import BytesIO

import pyarrow as pa

from ffaa_core.ahead import AHEAD, ahead
from ffaa_core.errors import CorruptTableError, NotFoundError
from ffaa_core.parquet import read_batches
from ffaa_core.storage import Store
from ffaa_core.table.records import Commit
from ffaa_core.table.schema import ROW_SCHEMA

WHOLE = 1 << 20
"""Bytes up to which a data file is read whole, by one request. S3 is never asked for less in any case."""


def read_commit(
    store: Store, commit: Commit, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of one committed shard, none of an abandoned one; of a large file only `columns`.

    A column may be a path into the nested ones, such as `faces.list.element.box`. Columns, and fields of
    columns read whole, that the file is too old to have are null.

    Raises:
        CorruptTableError: the data file is missing or damaged.
    """
    if commit.file is None:
        return
    wanted = ROW_SCHEMA.names if columns is None else columns
    try:
        file = (
            BytesIO(store.read(commit.file).data) if commit.size_bytes <= WHOLE else store.open(commit.file)
        )
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


def read_commits(
    store: Store, commits: Iterable[Commit], columns: Sequence[str], most: int = AHEAD
) -> Iterator[tuple[Commit, list[pa.RecordBatch]]]:
    """Each commit with its rows, as `read_commit`, of `most` commits at once.

    Small files on S3 take longer to open than to read.
    """

    def read(commit: Commit) -> tuple[Commit, list[pa.RecordBatch]]:
        return commit, list(read_commit(store, commit, columns))

    return ahead(read, commits, most)
