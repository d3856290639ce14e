"""Which rows of a verdict table are asked for, and what must be said beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ffaa_core.errors import ConfigurationError
from ffaa_core.printable import printable
from ffaa_core.table import Run, VerdictTable
from ffaa_core.table.schema import EXPORT_COLUMNS


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Rows of a table: those under `fingerprint`, or under all of them."""

    table: VerdictTable
    fingerprint: str | None = None
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
            latest=self.latest,
            fingerprint=self.fingerprint,
            columns=columns,
            statuses=self.statuses,
            verdicts=self.verdicts,
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

    def notes(self) -> list[str]:
        """Lines about the rows: what the bundles that measured them warn of, what was abandoned, and other
        fingerprints.
        """
        runs = self.table.runs()
        shown = [run for run in runs if self.fingerprint in (None, run.fingerprint)]
        warnings = {warning for run in shown if (warning := run.plan.settings.get("warning"))}
        lines = [f"WARNING: {printable(str(warning))}" for warning in sorted(warnings)]
        summary = shown[-1].summary() if shown else None
        if summary and summary.abandoned and (left := shown[-1].n_images - summary.counts.images):
            lines.append(f"run {summary.run} was abandoned: {left} of its images have no row from it")
        by_name = _by_fingerprint(runs)
        if len(by_name) > 1:
            held = ", ".join(_described(name, runs) for name, runs in by_name.items())
            which = f"{self.fingerprint} is shown (--fingerprint F: another, --all: all)"
            lines.append(
                f"{len(by_name)} fingerprints: {held}; {which if self.fingerprint else 'all are shown'}"
            )
        return lines


def find_fingerprint(table: VerdictTable, prefix: str | None) -> str | None:
    """The fingerprint that begins with `prefix`, or else the last run's; None if there is no run yet.

    Raises:
        ConfigurationError: none or several begin with it.
    """
    names = list(_by_fingerprint(table.runs()))
    if prefix is None:
        return names[-1] if names else None
    found = [name for name in names if name.startswith(prefix)]
    if len(found) != 1:
        problem = f"{len(found)} fingerprints begin" if found else "no fingerprint begins"
        there = f"it has {', '.join(names)}" if names else "it has no run yet"
        raise ConfigurationError(f"{problem} with {prefix!r} in {table.uri}: {there}")
    return found[0]


def _by_fingerprint(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs under each fingerprint, the last run's fingerprint last."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found[run.fingerprint] = [*found.pop(run.fingerprint, ()), run]
    return found


def _described(name: str, runs: Sequence[Run]) -> str:
    n_images = sum(run.n_images for run in runs)
    which = f"run {runs[-1].ordinal}" if len(runs) == 1 else f"{len(runs)} runs, the last {runs[-1].ordinal}"
    return f"{name} ({which}, {n_images} images planned)"
