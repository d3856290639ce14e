"""The rows of a verdict table for programs: as JSON, CSV or Parquet.

Names and answers are untrusted: nothing in them reaches a spreadsheet as a formula.
"""

import contextlib
import csv
import io
import json
import sys
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ffaa_core.commands.selection import Selection
from ffaa_core.errors import ConfigurationError, StorageError
from ffaa_core.printable import spreadsheet_cell
from ffaa_core.table.schema import EXPORT_SCHEMA


def export(selection: Selection, kind: str, to: Path | None) -> None:
    """Write the rows as `json`, `csv` or `parquet` to a file, whole or not at all, or to standard output.

    Raises:
        ConfigurationError: Parquet would go to a terminal, or the file cannot be where it is wanted.
        StorageError: the file cannot be written.
    """
    if kind == "parquet" and to is None and sys.stdout.isatty():
        raise ConfigurationError("Parquet is not for a terminal: give a file by --to FILE")
    write = {"json": _write_json, "csv": _write_csv, "parquet": _write_parquet}[kind]
    try:
        with _destination(to) as file:
            write(selection, file)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _failure(to, error) from error
    for note in selection.notes():
        print(note, file=sys.stderr)


@contextlib.contextmanager
def _destination(to: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that takes its name once it is whole."""
    if to is None:
        yield sys.stdout.buffer
    elif to.exists() and not to.is_file():  # a device or pipe
        with to.open("wb") as file:
            yield file
    else:
        target = to.resolve()
        temporary = target.with_name(f".ffaa-{uuid.uuid4().hex}")
        try:
            with temporary.open("xb") as file:
                yield file
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def _failure(to: Path | None, error: OSError) -> ConfigurationError | StorageError:
    if to and isinstance(error, FileNotFoundError | NotADirectoryError):
        return ConfigurationError(f"cannot write {to}: the folder {to.parent} does not exist")
    kind = ConfigurationError if isinstance(error, PermissionError | IsADirectoryError) else StorageError
    return kind(f"cannot write {to or 'standard output'}: {error.strerror or error}")


def _write_json(selection: Selection, file: BinaryIO) -> None:
    for row in selection.rows(selection.limit):
        file.write(json.dumps(row, default=_json_value).encode() + b"\n")


def _write_csv(selection: Selection, file: BinaryIO) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    scalars = [name for name in EXPORT_SCHEMA.names if name != "faces"]
    writer = csv.writer(text)
    writer.writerow([*scalars, "faces"])
    for row in selection.rows(selection.limit):
        cells = [_csv_value(row[name]) for name in scalars]
        writer.writerow([*cells, json.dumps(row["faces"], default=_json_value)])
    text.detach()


def _write_parquet(selection: Selection, file: BinaryIO) -> None:
    with pq.ParquetWriter(file, EXPORT_SCHEMA, compression="zstd") as writer:
        for batch in selection.batches(limit=selection.limit):
            writer.write_table(pa.Table.from_batches([batch]).select(EXPORT_SCHEMA.names).cast(EXPORT_SCHEMA))


def _csv_value(value: Any) -> Any:
    if isinstance(value, str):
        return spreadsheet_cell(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _json_value(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} in a row")
