"""`ffaa score` from end to end: plan, drive the open shards, close, and say how it went."""

import os
import sys
import time

from rich.console import Console

from ffaa_core.bundle import resolve_bundle
from ffaa_core.settings import fingerprint
from ffaa_core.table import Summary, VerdictTable
from ffaa_core.verdict import Status
from ray_jobs.score.config import ScoreConfig
from ray_jobs.score.display import count_lines, duration
from ray_jobs.score.inputs import list_images, require_apart
from ray_jobs.score.job import Job

TOO_MANY_FAILURES = 3


def score(config: ScoreConfig, input_uri: str, output_uri: str, *, verbose: bool = False) -> int:
    """Score what INPUT names and OUTPUT does not hold yet; returns the exit code.

    Raises:
        ConfigurationError: INPUT, OUTPUT, the bundle or the configuration is wrong; nothing was started.
        RunConflictError: a run with other settings is open on OUTPUT.
    """
    started = time.monotonic()
    console = Console(stderr=True)
    require_apart(input_uri, output_uri)
    bundle = resolve_bundle(config.bundle)
    marked = fingerprint(config.scoring, bundle.digests)
    table = VerdictTable.open(output_uri, create=True)
    run = table.plan(
        lambda: list_images(input_uri, config.run.uri_column),
        fingerprint=marked,
        settings={"scoring": config.scoring.to_dict(), "bundle": bundle.digests, "input": input_uri},
        shard_size=config.run.shard_size,
        shard_bytes=config.run.shard_bytes,
    )
    if run is None:
        last = table.latest_summary(marked)
        print(f"nothing to do: {input_uri} is settled in {output_uri} under fingerprint {marked}")
        return last.exit_code if last else 0
    if open_shards := run.open_shards():
        from ray_jobs.score.driver import drive

        console.print(
            f"run {run.ordinal}: {run.n_images} images in {run.n_shards} shards, {len(open_shards)} still open; "
            f"fingerprint {marked}",
            highlight=False,
        )
        job = Job(
            output=output_uri,
            run=run.ordinal,
            fingerprint=marked,
            bundle=config.bundle or os.environ.get("FFAA_BUNDLE") or str(bundle.path),
            config=config,
        )
        drive(job, run, console, verbose=verbose)
    summary = run.close(lambda counts: exit_code(counts, config.run.max_failure_rate))
    _report(summary, time.monotonic() - started, output_uri, config.run.max_failure_rate)
    if bundle.warning:
        print(f"ffaa: {bundle.warning}", file=sys.stderr)
    return summary.exit_code


def exit_code(rows_by_status: dict[str, int], max_failure_rate: float) -> int:
    """0, or 3 if more than this share of a run's images failed."""
    total = sum(rows_by_status.values())
    failed = sum(count for status, count in rows_by_status.items() if Status(status).failed)
    return TOO_MANY_FAILURES if failed > max_failure_rate * total else 0


def _report(summary: Summary, seconds: float, output_uri: str, max_failure_rate: float) -> None:
    n_images = sum(summary.rows_by_status.values())
    print(
        f"{n_images} images, {summary.faces} faces in {duration(seconds)}, {n_images / seconds:.2f} images/s"
    )
    print(*count_lines(summary.rows_by_status), sep="\n")
    if summary.rows_by_verdict:
        print("verdicts:", *count_lines(summary.rows_by_verdict), sep="\n")
    if summary.exit_code == TOO_MANY_FAILURES:
        print(f"more than {max_failure_rate:.0%} of the images failed: exit code {TOO_MANY_FAILURES}")
    print(f"see them with: ffaa table show {output_uri}")
