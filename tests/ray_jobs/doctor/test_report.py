"""Findings for people and for programs."""

import io
import json

import pytest
from rich.console import Console

from ray_jobs.doctor.finding import Finding, error, ok, warning
from ray_jobs.doctor.report import _grid, report

FINE = ok("input", "3 objects listed", images=3)
POOR = warning("gpu", "none", "rent one")
BAD = error("race", "8 of 8 won", "use another storage")


def reported(*findings: Finding, kind: str = "text") -> tuple[str, int]:
    file = io.StringIO()
    code = report(findings, file, kind)  # type: ignore[arg-type]
    return file.getvalue(), code


@pytest.mark.parametrize(
    ("findings", "code", "conclusion"),
    [
        ((FINE,), 0, "all is well"),
        ((FINE, POOR), 0, "no error, 1 warning"),
        ((FINE, POOR, BAD, BAD), 2, "2 errors: put that right before the run"),
    ],
)
def test_only_errors_make_the_exit_code_2(findings: tuple[Finding, ...], code: int, conclusion: str) -> None:
    text, exit_code = reported(*findings)
    assert exit_code == code
    assert text.splitlines()[-1] == conclusion


def test_each_line_says_how_bad_it_is_and_what_to_do() -> None:
    lines = [line.strip() for line in reported(FINE, BAD)[0].splitlines()]
    assert lines[0].split() == ["ok", "input", "3", "objects", "listed"]
    assert lines[1].startswith("error")
    assert lines[2] == "→ use another storage"


def test_names_of_objects_reach_a_terminal_without_their_control_characters() -> None:
    text, _ = reported(ok("input", "a\x1b[31m\n[bold]b[/bold].jpg reads"))
    assert "\x1b" not in text
    assert "[bold]b[/bold].jpg" in text


def test_programs_get_one_object_a_line_and_nothing_else() -> None:
    text, exit_code = reported(FINE, BAD, kind="json")
    assert exit_code == 2
    assert [json.loads(line) for line in text.splitlines()] == [
        {"level": "ok", "check": "input", "text": "3 objects listed", "advice": "", "figures": {"images": 3}},
        {
            "level": "error",
            "check": "race",
            "text": "8 of 8 won",
            "advice": "use another storage",
            "figures": {},
        },
    ]


def test_a_terminal_gets_columns_within_its_width() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    console.print(_grid(error("race", "8 of 8 racing creators won " * 4, "use another storage")))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) > 3
    assert all(len(line) <= 60 for line in lines)
    assert {line[:19].strip() for line in lines[1:]} == {""}
