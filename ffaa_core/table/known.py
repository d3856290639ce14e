"""The known rows of a closed run: what planning needs of all its rows, in one object.

So it opens one instead of thousands. All is in the data files, too: where the object is missing or damaged,
those are read.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ffaa_core.errors import CorruptTableError, NotFoundError, StorageError
from ffaa_core.storage import Store
from ffaa_core.table import layout
from ffaa_core.table.data_files import read_commits
from ffaa_core.table.records import Commit
from ffaa_core.table.schema import KNOWN_SCHEMA
from ffaa_core.table.scratch import gathered

CHUNK = 16 << 20
"""Bytes fetched by one request."""


def write_known(store: Store, run: int, commits: Iterable[Commit]) -> str | None:
    """Write the known rows of a run that has these commits, under a name with their sha256.

    So several may write them: the same commits make the same object.

    Returns:
        The sha256; None, with nothing written, if a data file is missing or damaged.

    Raises:
        StorageError: the temporary folder is full, or the storage failed.
    """
    with tempfile.TemporaryDirectory(prefix="ffaa-known-") as folder:
        path = Path(folder, "known.parquet")
        try:
            with pq.ParquetWriter(path, KNOWN_SCHEMA, compression="zstd") as writer:
                for rows in gathered(committed_known(store, commits)):
                    writer.write_table(rows)
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except CorruptTableError:
            return None
        except OSError as error:
            raise _no_room(error) from error
        store.write(layout.known(run, sha256), path)
    return sha256


@contextmanager
def fetched_known(store: Store, run: int, sha256: str) -> Iterator[BinaryIO | None]:
    """A local copy of a run's known rows, a Parquet file; None if they are missing or others.

    Raises:
        StorageError: as `write_known`.
    """
    with tempfile.TemporaryFile(prefix="ffaa-known-") as copy:
        try:
            with closing(store.open(layout.known(run, sha256))) as source:
                shutil.copyfileobj(source, copy, CHUNK)
            copy.seek(0)
            found = hashlib.file_digest(copy, "sha256").hexdigest()
        except NotFoundError:
            found = None
        except OSError as error:
            raise _no_room(error) from error
        copy.seek(0)
        yield copy if found == sha256 else None


def committed_known(store: Store, commits: Iterable[Commit]) -> Iterator[pa.RecordBatch]:
    """The known rows, in `KNOWN_SCHEMA`, as the data files have them.

    Raises:
        CorruptTableError: one is missing or damaged.
    """
    for _, batches in read_commits(store, commits, KNOWN_SCHEMA.names):
        for batch in batches:
            yield batch.select(KNOWN_SCHEMA.names).cast(KNOWN_SCHEMA)


def _no_room(error: OSError) -> StorageError:
    return StorageError(
        f"cannot keep a run's known rows in the temporary folder {tempfile.gettempdir()}: {error}; free "
        "some space or set TMPDIR to a larger disk"
    )
