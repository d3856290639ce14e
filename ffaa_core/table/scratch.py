"""A place to sort, join and group what does not fit in memory: DuckDB, which spills to disk."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from ffaa_core.errors import StorageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "256MB"
"""What DuckDB holds before it spills: a million images are planned in hardly more time than with 1 GB."""
THREADS = 4
"""Each holds some of that memory for itself; with 16 of them nearly all else is spilled."""
BATCH = 1 << 16


def gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Many small batches, such as shards, as few tables of hardly more than `BATCH` rows."""
    waiting: list[pa.RecordBatch] = []
    n_rows = 0
    for batch in batches:
        waiting.append(batch)
        n_rows += len(batch)
        if n_rows >= BATCH:
            yield pa.Table.from_batches(waiting)
            waiting, n_rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


class Scratch:
    """Tables that live as long as the `with` block of `scratch()`."""

    def __init__(self, connection: "DuckDBPyConnection") -> None:
        self._connection = connection

    def run(self, sql: str) -> None:
        self._connection.execute(sql)

    def insert(self, table: str, rows: pa.Table | pa.RecordBatch) -> None:
        """Append rows to a table whose columns have the names of theirs."""
        self._connection.register("inserted", rows)
        self._connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM inserted")
        self._connection.unregister("inserted")

    def fill(self, table: str, batches: Iterable[pa.RecordBatch]) -> None:
        """Insert many small batches, such as shards, by few large insertions."""
        for rows in gathered(batches):
            self.insert(table, rows)

    def query(self, sql: str, parameters: dict[str, object]) -> Iterator[pa.RecordBatch]:
        """The rows of a query, in batches; nothing else may be asked before the last one is read."""
        yield from self._connection.sql(sql, params=parameters).to_arrow_reader(BATCH)


@contextmanager
def scratch() -> Iterator[Scratch]:
    """An empty scratch place in the system's temporary folder, removed at the end.

    Raises:
        StorageError: the temporary folder is full, or memory is.
    """
    import duckdb

    with tempfile.TemporaryDirectory(prefix="ffaa-scratch-") as folder:
        config: dict[str, str | bool | int | float | list[str]] = {
            "temp_directory": folder,
            "memory_limit": MEMORY,
            "threads": min(THREADS, os.cpu_count() or 1),
            "autoinstall_known_extensions": False,
        }
        try:
            with duckdb.connect(":memory:", config=config) as connection:
                yield Scratch(connection)
        except duckdb.IOException as error:
            raise StorageError(
                f"cannot sort in the temporary folder {folder}: {error}; free some space or set TMPDIR to a "
                "larger disk"
            ) from error
        except duckdb.OutOfMemoryException as error:
            raise StorageError(
                f"cannot sort with {MEMORY} of memory and the disk of {folder}: {error}; if that is full, "
                "free some space or set TMPDIR to a larger one, else give the machine more memory"
            ) from error
