"""Reading Parquet on the calling thread alone.

Arrow's own threads may still hold a Python file or buffer when the interpreter ends, and then take the whole
process down ("terminate called without an active exception") after its work was done.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq


def read_batches(
    file: BinaryIO, *, columns: Sequence[str] | None = None, size: int = 4096
) -> Iterator[pa.RecordBatch]:
    """The rows of an open file, `size` at a time; little more is read than the bytes of `columns`.

    Raises:
        pa.ArrowException: the file is damaged, or has not all of `columns`.
    """
    with pq.ParquetFile(file) as parquet:
        yield from parquet.iter_batches(size, columns=columns, use_threads=False)


def read_table(source: BinaryIO | bytes, *, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of an open file, or of a file's bytes; errors as in `read_batches`."""
    with pq.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source) as parquet:
        return parquet.read(columns=columns, use_threads=False)
