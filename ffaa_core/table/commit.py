"""What a shard's rows must be before they are committed, and how they become a data file."""

import hashlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ffaa_core.errors import StorageError, TableError, TornShardError
from ffaa_core.table.records import Counts
from ffaa_core.table.schema import ROW_SCHEMA
from ffaa_core.verdict import Status

KEY = ("image_uri", "planned_version", "attempts")
"""The columns in which rows equal the plan's, one by one and in order."""


def cast_rows(rows: pa.Table) -> pa.Table:
    """The rows in `ROW_SCHEMA`, which whoever made or moved them may have loosened.

    Raises:
        TableError: a column is missing, too many, or cannot have its type.
    """
    if rows.schema.names != ROW_SCHEMA.names:
        odd = sorted(set(rows.schema.names) ^ set(ROW_SCHEMA.names)) or "their order"
        raise TableError(f"the rows do not have the columns of a verdict table: {odd}")
    try:
        return rows.cast(ROW_SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise TableError(f"the rows do not have the types of a verdict table: {error}") from error


def check_rows(rows: pa.Table, planned: pa.Table, *, run: int, fingerprint: str, shard: int) -> None:
    """Make sure that rows are, key by key, the plan's rows of the shard; other columns may be absent.

    Raises:
        TornShardError: an image is missing, foreign, doubled or out of order.
        TableError: a row names another run, fingerprint or shard, or an unknown status.
    """
    where = f"shard {shard} of run {run}"
    if len(rows) != len(planned):
        raise TornShardError(f"{where} was offered {len(rows)} rows, planned are {len(planned)} images")
    for column in KEY:
        for i, (got, expected) in enumerate(
            zip(rows[column].to_pylist(), planned[column].to_pylist(), strict=True)
        ):
            if got != expected:
                raise TornShardError(f"row {i} of {where} has {column} {got!r}, planned is {expected!r}")
    for column, expected in (("run", run), ("fingerprint", fingerprint), ("shard", shard)):
        if strangers := set(pc.unique(rows[column]).to_pylist()) - {expected}:
            raise TableError(f"the rows for {where} have {column} {strangers}, it must be {expected!r}")
    if unknown := set(pc.unique(rows["status"]).to_pylist()) - set(Status):
        raise TableError(f"the rows for {where} have unknown statuses: {sorted(unknown)}")


def count(rows: pa.Table) -> Counts:
    """Numbers of images and faces in a shard's rows."""
    return Counts(
        images=len(rows),
        statuses=_tally(rows["status"]),
        verdicts=_tally(rows["verdict"]),
        contested=pc.sum(rows["contested"]).as_py() or 0,
        faces=pc.sum(rows["n_faces"]).as_py() or 0,
    )


def write_data_file(rows: pa.Table, path: Path) -> str:
    """Write rows as a Parquet file of the local disk; returns its sha256.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        pq.write_table(rows, path, compression="zstd")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(
            f"cannot write a shard's rows to the temporary folder {path.parent}: {error}; free some space or "
            "set TMPDIR to a larger disk"
        ) from error


def _tally(column: pa.ChunkedArray) -> dict[str, int]:
    return dict(sorted(Counter(value for value in column.to_pylist() if value is not None).items()))
