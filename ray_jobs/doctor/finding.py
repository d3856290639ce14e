"""What the doctor found: one line each, of three levels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ffaa_core.errors import FFAAError


class Level(StrEnum):
    """How bad it is: an error would stop or spoil the run, a warning would not."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found by one check. `advice` says what to do, `figures` repeats numbers for programs."""

    level: Level
    check: str
    text: str
    advice: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


def ok(check: str, text: str, **figures: float) -> Finding:
    """All is well."""
    return Finding(level=Level.OK, check=check, text=text, figures=figures)


def warning(check: str, text: str, advice: str, **figures: float) -> Finding:
    """The run would go on, in a way its owner may not want."""
    return Finding(level=Level.WARNING, check=check, text=text, advice=advice, figures=figures)


def error(check: str, text: str, advice: str = "") -> Finding:
    """The run would not start, or its table could not be trusted."""
    return Finding(level=Level.ERROR, check=check, text=text, advice=advice)


def guarded(check: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings; an error of ours among them ends them, and is the last one."""
    try:
        yield from findings
    except FFAAError as failure:
        yield error(check, str(failure))
