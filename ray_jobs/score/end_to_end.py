"""`ffaa score` from end to end: plan, drive the open shards, close, and say how it went."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain

import pyarrow.compute as pc

from ffaa_core.bundle import Bundle, resolve_bundle
from ffaa_core.errors import ConfigurationError
from ffaa_core.settings import fingerprint
from ffaa_core.table import PlannedImage, Run, Summary, VerdictTable
from ffaa_core.table.data_files import read_commit
from ffaa_core.verdict import Status
from ray_jobs.score.config import ScoreConfig
from ray_jobs.score.display import count_lines, duration
from ray_jobs.score.inputs import absolute, list_images, outside, require_apart
from ray_jobs.score.inventory import newest_report
from ray_jobs.score.job import Job
from ray_jobs.score.signals import stop_requests, stopped

TOO_MANY_FAILURES = 3


def score(
    config: ScoreConfig,
    input_uri: str,
    output_uri: str,
    *,
    name: str | None = None,
    retry: Collection[Status] = (),
    verbose: bool = False,
) -> int:
    """Score what INPUT names and OUTPUT does not hold yet; returns the exit code.

    A run that an earlier command left open is finished first, and then what is new since is planned; not so
    under `run.max_images` or `retry`, which may have been that command's and are then done.

    Args:
        name: the user's name of the run. A finished run of this name is not followed by another.
        retry: statuses that are planned again whatever they are and however often they were tried.
        verbose: show the log lines of Ray and vLLM.

    Raises:
        ConfigurationError: INPUT, OUTPUT, the bundle or the configuration is wrong; nothing was started.
        RunConflictError: a run with other settings is open on OUTPUT.
        JobError: the run stalled, or a signal stopped it.
    """
    with stop_requests(patient=False):
        return _score(config, input_uri, output_uri, name=name, retry=retry, verbose=verbose)


def _score(
    config: ScoreConfig,
    input_uri: str,
    output_uri: str,
    *,
    name: str | None,
    retry: Collection[Status],
    verbose: bool,
) -> int:
    require_apart(input_uri, output_uri)
    if (report := newest_report(input_uri)) != input_uri:
        print(f"{input_uri} is an S3 Inventory; its newest report is {report}")
        input_uri = report

    def listing() -> Iterator[PlannedImage]:
        return outside(list_images(input_uri, config.run.uri_column), output_uri)

    images = listing()
    if not VerdictTable.exists(output_uri):
        images = _proved_listing(images)
    bundle = resolve_bundle(config.bundle)
    check_adapter(bundle)
    current = fingerprint(config.scoring, bundle.digests)
    table = VerdictTable.open(output_uri, create=True)
    leftover: Summary | None = None
    while True:
        started = time.monotonic()
        begun = table.open_run()
        run = table.plan(
            images,
            fingerprint=current,
            settings={
                "scoring": config.scoring.to_dict(),
                "bundle": bundle.digests,
                "warning": bundle.warning,
                "input": absolute(input_uri),
            },
            name=name,
            retry=retry,
            shard_size=config.run.shard_size,
            shard_bytes=config.run.shard_bytes,
            max_images=config.run.max_images,
        )
        if run is None:
            if leftover is None:
                print(f"nothing to do: {input_uri} is settled in {output_uri} under fingerprint {current}")
            return last_exit_code(table.runs(), current, absolute(input_uri))
        job = Job(
            output=table.uri, run=run.ordinal, fingerprint=current, bundle=bundle.location, config=config
        )
        carried = leftover.exit_code if leftover else 0
        summary, signalled = _finish(job, table, run, absolute(input_uri), carried, verbose=verbose)
        _report(summary, time.monotonic() - started, output_uri, config.run.max_failure_rate)
        _tell_rest(run, name, bundle.warning)
        if not is_leftover(run, begun, name) or summary.abandoned:
            return summary.exit_code
        if config.run.max_images or retry:
            print(f"run {run.ordinal} was begun earlier: anything else is for the same command after it")
            return summary.exit_code
        if signalled:
            raise stopped(signalled)
        leftover, images = summary, listing()


def is_leftover(run: Run, begun: Run | None, name: str | None) -> bool:
    """Whether `run`, now finished, was an earlier command's, so that what is new since was not planned.

    Args:
        begun: the run that was open when this command came.
        name: what this command calls its run. One that was begun under this name is its own.
    """
    return begun is not None and begun.ordinal == run.ordinal and (name is None or run.plan.name != name)


def _finish(
    job: Job, table: VerdictTable, run: Run, images: str, carried: int, *, verbose: bool
) -> tuple[Summary, str | None]:
    """Score the open shards of the run and close it; returns the signal, too, that came meanwhile.

    Args:
        images: its INPUT.
        carried: the exit code of what this command has finished before, which is not to be forgotten.
    """

    def close() -> Summary:
        earlier = [other for other in table.runs() if other.ordinal < run.ordinal]
        before = last_exit_code(earlier, run.fingerprint, images)
        code = exit_code(*_statuses_of(table, run), before, job.config.run.max_failure_rate)
        return run.close(max(code, carried))

    signalled = _drive_open_shards(job, run, lambda: close().exit_code, verbose=verbose)
    return run.summary() or close(), signalled


def _proved_listing(images: Iterator[PlannedImage]) -> Iterator[PlannedImage]:
    """The same listing, once it is proved to name something; before that no table is made for it."""
    first = next(images, None)  # a listing without images raises ConfigurationError
    if first is None:
        raise ConfigurationError("nothing to score: all that INPUT lists lies in OUTPUT; give another OUTPUT")
    return chain([first], images)


def check_adapter(bundle: Bundle) -> None:
    """Prove that the bundle's adapter fits its model before anything is planned for it.

    Raises:
        AdapterError: a tensor of the adapter belongs to no module of the model.
    """
    from ffaa_core.engine.adapter import Adapter
    from ffaa_core.engine.checkpoint import tensor_shapes

    if bundle.adapter:
        Adapter.read(bundle.adapter).check_fits(tensor_shapes(bundle.mllm))


def exit_code(
    first: Mapping[str, int], again: Mapping[str, int], before: int, max_failure_rate: float
) -> int:
    """What a run ends with: 3 if more than `max_failure_rate` of its new images failed, else 0.

    A run that only tries images again ends as the run before it, or with 0 if none of them failed this time:
    its rate would be over the few that failed before.

    Args:
        first: numbers of new images by status.
        again: the same of images that earlier runs tried.
        before: exit code of the last run over the same INPUT.
    """
    if first:
        return TOO_MANY_FAILURES if _failed(first) > max_failure_rate * sum(first.values()) else 0
    return before if _failed(again) else 0


def last_exit_code(runs: Sequence[Run], current: str, images: str) -> int:
    """Exit code of the last finished run over these images under the fingerprint `current`; 0 if there is
    none. Abandoned runs are passed over.
    """
    for run in reversed(runs):
        if run.fingerprint == current and run.plan.settings.get("input") == images:
            summary = run.summary()
            if summary and not summary.abandoned:
                return summary.exit_code
    return 0


def _failed(statuses: Mapping[str, int]) -> int:
    return sum(count for status, count in statuses.items() if Status(status).failed)


def _statuses_of(table: VerdictTable, run: Run) -> tuple[Counter[str], Counter[str]]:
    """The run's rows by status: of images tried for the first time, and of the others.

    Data files are read only of shards with images that are tried again.
    """
    with_repeats = set[int]()
    for part in run.plan.parts:
        rows = run.plan_part(part)
        with_repeats.update(rows.filter(pc.field("attempts") > 1)["shard"].to_pylist())
    first, again = Counter[str](), Counter[str]()
    for commit in run.commits():
        if commit.shard not in with_repeats:
            first.update(commit.counts.statuses)
            continue
        for batch in read_commit(table.store, commit, ("status", "attempts")):
            statuses, attempts = (batch[name].to_pylist() for name in ("status", "attempts"))
            for status, attempt in zip(statuses, attempts, strict=True):
                (first if attempt == 1 else again)[status] += 1
    return first, again


def _drive_open_shards(job: Job, run: Run, close: Callable[[], int], *, verbose: bool) -> str | None:
    shards = run.open_shards()
    if not shards:
        return None
    from ray_jobs.score.driver import drive

    print(
        f"run {run.ordinal}: {run.n_images} images, {len(shards)} of {run.n_shards} shards to do; "
        f"fingerprint {run.fingerprint}",
        file=sys.stderr,
    )
    return drive(job, run, shards, verbose=verbose, close=close)


def _report(summary: Summary, seconds: float, output_uri: str, max_failure_rate: float) -> None:
    counts = summary.counts
    print(f"{counts.images} images, {counts.faces} faces in {duration(seconds)}")
    print(*count_lines(counts.statuses), sep="\n")
    if counts.verdicts:
        print("verdicts:", *count_lines(counts.verdicts), sep="\n")
    if summary.exit_code == TOO_MANY_FAILURES:
        print(f"more than {max_failure_rate:.0%} of the images failed: exit code {TOO_MANY_FAILURES}")
        if gone := counts.statuses.get(Status.GONE):
            print(f"{gone} of {counts.images} images are not where INPUT says: are its addresses right?")
    if summary.abandoned:
        print(f"run {summary.run} was abandoned: the same command scores in a new run what has no row yet")
    print(f"see them with: ffaa table show {output_uri}")


def _tell_rest(run: Run, name: str | None, warning: str | None) -> None:
    if run.plan.n_left:
        again = "the same command, under another name," if name else "the same command"
        print(f"{run.plan.n_left} more images are to be done: {again} does the next of them")
    if warning:
        print(f"ffaa: {warning}", file=sys.stderr)
