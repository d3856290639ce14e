"""The rows of a verdict table for people: as a table in a terminal, else as tab-separated lines.

Answers and names are untrusted: nothing in them reaches a terminal as a control sequence or markup.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ffaa_core.commands.selection import Selection
from ffaa_core.printable import printable
from ffaa_core.verdict import TRANSIENT

TERMINAL_LIMIT = 100
WIDE = 100
"""Columns of a terminal from which on the forgery type has room."""
CAVEAT = "A verdict supports a decision; it does not make one."
HEADINGS = ("image", "status", "verdict", "forgery score", "faces", "forgery type", "reason")
COLOURS = {"fake": "bold red", "real": "green"} | {status.value: "yellow" for status in TRANSIENT}


def show(selection: Selection, console: Console | None = None) -> None:
    """Print rows and what they add up to; elsewhere than in a terminal the latter goes to standard error."""
    console = console or Console()
    if console.is_terminal:
        limit = selection.limit or TERMINAL_LIMIT
        lines = _show_table(list(selection.rows(limit)), console)
        totals = console.file
    else:
        limit = selection.limit or sys.maxsize
        lines = []
        console.file.write("\t".join(HEADINGS) + "\n")
        for row in selection.rows(limit):
            console.file.write("\t".join(_cells(row, " (contested)").values()) + "\n")
        totals = sys.stderr
    print(*lines, *selection.notes(), *_totals(selection, limit), CAVEAT, sep="\n", file=totals)


def _show_table(rows: Sequence[dict[str, Any]], console: Console) -> list[str]:
    """Print the table; returns the lines that explain it."""
    common = os.path.commonprefix([row["image_uri"] for row in rows])  # noqa: RUF071 - cut at a slash next
    folder = common[: common.rfind("/") + 1]
    if folder:
        console.file.write(f"images below {printable(folder)}\n")
    wide = console.width >= WIDE
    headings = [heading for heading in HEADINGS if wide or heading != "forgery type"]
    cells = [_cells({**row, "image_uri": row["image_uri"][len(folder) :]}, "*") for row in rows]
    longest = max((len(each["image"]) for each in cells), default=0)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, expand=True)
    table.add_column("image", overflow="fold", width=max(5, min(longest, console.width * 3 // 10)))
    table.add_column("status", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("forgery\nscore", justify="right", no_wrap=True)
    table.add_column("faces", justify="right", no_wrap=True)
    if wide:
        table.add_column("forgery type", max_width=14)
    table.add_column("reason", no_wrap=True, overflow="ellipsis", ratio=1)
    for row, texts in zip(rows, cells, strict=True):
        colours = {word: COLOURS.get(row[word], "") for word in ("status", "verdict")}
        table.add_row(*(Text(texts[heading], style=colours.get(heading, "")) for heading in headings))
    console.print(table)
    lines = []
    if any(row["contested"] for row in rows):
        lines.append("* contested: the verdict and the forgery score fall on different sides")
    if not wide:
        lines.append(f"forgery types are shown from {WIDE} columns on")
    return lines


def _cells(row: dict[str, Any], contested: str) -> dict[str, str]:
    """A row under `HEADINGS`; what is said of the image is said of its most suspect face."""
    scored = [face for face in row["faces"] or () if face["forgery_score"] is not None]
    scored.sort(key=lambda face: (face["verdict"] == row["verdict"], face["forgery_score"]))
    face: dict[str, Any] = scored[-1] if scored else {}
    cells = (
        row["image_uri"],
        row["status"],
        (row["verdict"] or "") + (contested if row["contested"] else ""),
        "" if row["forgery_score"] is None else f"{row['forgery_score']:.3f}",
        "" if row["n_faces"] is None else str(row["n_faces"]),
        (face.get("forgery_type") or "").replace("_", " "),
        row["status_detail"] or face.get("reasoning") or "",
    )
    return {heading: printable(cell) for heading, cell in zip(HEADINGS, cells, strict=True)}


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
