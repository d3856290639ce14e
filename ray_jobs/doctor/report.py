"""Findings for people and for programs, each shown as soon as it is there."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Literal, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ffaa_core.printable import printable
from ray_jobs.doctor.finding import Finding, Level

Format = Literal["text", "json"]

COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "bold red"}
LEVEL_WIDTH, CHECK_WIDTH = 7, 8
WRONG = 2


def report(findings: Iterable[Finding], file: TextIO, kind: Format) -> int:
    """Write the findings as they come; returns the exit code: 2 if there is an error, else 0."""
    levels = Counter[Level]()
    console = Console(file=file, highlight=False)
    for finding in findings:
        levels[finding.level] += 1
        if kind == "json":
            file.write(json.dumps(asdict(finding)) + "\n")
        elif console.is_terminal:
            console.print(_grid(finding))
        else:
            file.writelines(_lines(finding))
        file.flush()
    if kind == "text":
        file.write(_conclusion(levels) + "\n")
        file.flush()
    return WRONG if levels[Level.ERROR] else 0


def _lines(finding: Finding) -> list[str]:
    start = f"{finding.level:<{LEVEL_WIDTH}}  {finding.check:<{CHECK_WIDTH}}  "
    lines = [f"{start}{printable(finding.text)}\n"]
    if finding.advice:
        lines.append(f"{'':{len(start)}}→ {printable(finding.advice)}\n")
    return lines


def _grid(finding: Finding) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=LEVEL_WIDTH)
    grid.add_column(width=CHECK_WIDTH)
    grid.add_column(overflow="fold")
    text = Text(printable(finding.text))
    if finding.advice:
        text.append(f"\n→ {printable(finding.advice)}")
    grid.add_row(Text(finding.level, style=COLOURS[finding.level]), finding.check, text)
    return grid


def _conclusion(levels: Counter[Level]) -> str:
    errors, warnings = levels[Level.ERROR], levels[Level.WARNING]
    if errors:
        return f"{_number(errors, 'error')}: put that right before the run"
    return f"no error, {_number(warnings, 'warning')}" if warnings else "all is well"


def _number(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
