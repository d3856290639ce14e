"""The rows of a verdict table for people and programs: in a terminal, as lines, JSON, CSV and Parquet.

Answers and names are untrusted: nothing in them reaches a terminal as a control sequence or markup, nor a
spreadsheet as a formula.
"""

import contextlib
import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ffaa_core.errors import ConfigurationError, StorageError
from ffaa_core.printable import printable, spreadsheet_cell
from ffaa_core.table import VerdictTable
from ffaa_core.table.schema import EXPORT_COLUMNS, EXPORT_SCHEMA
from ffaa_core.verdict import TRANSIENT

TERMINAL_LIMIT = 100
CAVEAT = "A verdict supports a decision; it does not make one."
HEADINGS = ("image", "status", "verdict", "forgery score", "faces", "forgery type", "reason")
COLOURS = {"fake": "bold red", "real": "green"} | {status.value: "yellow" for status in TRANSIENT}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rows of a table are asked for."""

    table: VerdictTable
    latest: bool = True
    statuses: Sequence[str] | None = None
    verdicts: Sequence[str] | None = None
    limit: int | None = None

    def batches(
        self, columns: Sequence[str] = EXPORT_COLUMNS, limit: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows, at most `limit`."""
        left = limit
        for batch in self.table.rows(
            latest=self.latest, columns=columns, statuses=self.statuses, verdicts=self.verdicts
        ):
            yield batch.slice(0, left)
            if left is not None:
                left -= min(left, len(batch))
                if left == 0:
                    return

    def rows(self, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """The same as mappings."""
        for batch in self.batches(limit=limit):
            yield from batch.to_pylist()


def show(selection: Selection, console: Console | None = None) -> None:
    """Print a table to a terminal, or tab-separated lines elsewhere, and what it adds up to."""
    console = console or Console()
    if console.is_terminal:
        limit = selection.limit or TERMINAL_LIMIT
        console.print(_table(selection.rows(limit)))
    else:
        limit = selection.limit or sys.maxsize
        console.file.write("\t".join(HEADINGS) + "\n")
        for row in selection.rows(limit):
            console.file.write("\t".join(_cells(row)) + "\n")
    console.file.write("\n" + "\n".join([*_totals(selection, limit), CAVEAT]) + "\n")


def export(selection: Selection, kind: str, to: Path | None) -> None:
    """Write the rows as `json`, `csv` or `parquet` to a file, or to standard output.

    Raises:
        ConfigurationError: Parquet would go to a terminal.
        StorageError: the file cannot be written.
    """
    if kind == "parquet" and to is None and sys.stdout.isatty():
        raise ConfigurationError("Parquet is not for a terminal: give a file by --to FILE")
    write = {"json": _write_json, "csv": _write_csv, "parquet": _write_parquet}[kind]
    try:
        with to.open("wb") if to else contextlib.nullcontext(sys.stdout.buffer) as file:
            write(selection, file)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"cannot write {to or 'standard output'}: {error.strerror or error}") from error


def _table(rows: Iterator[dict[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("image", no_wrap=True, overflow="ellipsis", ratio=2, min_width=12)
    table.add_column("status", no_wrap=True)
    table.add_column("verdict", max_width=11)
    table.add_column("forgery\nscore", justify="right")
    table.add_column("faces", justify="right")
    table.add_column("forgery type", max_width=14)
    table.add_column("reason", no_wrap=True, overflow="ellipsis", ratio=4, min_width=12)
    for row in rows:
        colours = {"status": COLOURS.get(row["status"], ""), "verdict": COLOURS.get(row["verdict"], "")}
        cells = zip(HEADINGS, _cells(row), strict=True)
        table.add_row(*(Text(cell, style=colours.get(heading, "")) for heading, cell in cells))
    return table


def _cells(row: dict[str, Any]) -> list[str]:
    """A row in the words of `HEADINGS`; what is said of the image is said of its most suspect face."""
    scored = [face for face in row["faces"] or () if face["forgery_score"] is not None]
    scored.sort(key=lambda face: (face["verdict"] == row["verdict"], face["forgery_score"]))
    face: dict[str, Any] = scored[-1] if scored else {}
    verdict = (row["verdict"] or "") + (" (contested)" if row["contested"] else "")
    score = "" if row["forgery_score"] is None else f"{row['forgery_score']:.3f}"
    cells = (
        row["image_uri"].rpartition("/")[2],
        row["status"],
        verdict,
        score,
        "" if row["n_faces"] is None else str(row["n_faces"]),
        (face.get("forgery_type") or "").replace("_", " "),
        row["status_detail"] or face.get("reasoning") or "",
    )
    return [printable(cell) for cell in cells]


def _totals(selection: Selection, limit: int) -> list[str]:
    """Lines that count all selected rows, also those beyond the limit."""
    counts: dict[str, dict[str, int]] = {"status": {}, "verdict": {}}
    n_rows = n_contested = 0
    for batch in selection.batches(("status", "verdict", "contested")):
        n_rows += len(batch)
        n_contested += sum(bool(value) for value in batch["contested"].to_pylist())
        for column, tally in counts.items():
            for pair in batch[column].value_counts().to_pylist():
                if pair["values"] is not None:
                    tally[pair["values"]] = tally.get(pair["values"], 0) + pair["counts"]
    parts = [f"{n} {word}" for tally in counts.values() for word, n in sorted(tally.items())]
    if n_contested:
        parts.append(f"{n_contested} contested")
    lines = [f"{n_rows} {'images' if selection.latest else 'rows'}: {', '.join(parts) or 'nothing yet'}"]
    if n_rows > limit:
        lines.insert(0, f"the first {limit} of {n_rows} are shown; --limit N shows more")
    return lines


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
