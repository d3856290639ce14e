"""Driving the open shards of a run through the three stages over Ray Data."""

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console

from ffaa_core.diversion import libraries_diverted
from ffaa_core.errors import FFAAError, JobError
from ffaa_core.reaper import reaped
from ffaa_core.table import Run
from ray_jobs.score.answer import SHARDS_IN_FLIGHT, AnswerStage
from ray_jobs.score.cluster import Shares, cluster
from ray_jobs.score.display import Display, RunState
from ray_jobs.score.failures import explain
from ray_jobs.score.fetch_crop import fetch_crop
from ray_jobs.score.job import Job
from ray_jobs.score.judge import JudgeStage
from ray_jobs.score.metrics import RunMetrics
from ray_jobs.score.progress import start_progress, told_failure
from ray_jobs.score.signals import stop_requests, stopped
from ray_jobs.score.watch import ANSWER_S, Watch, watched

RETRIES = 5
"""Times a shard is fetched again whose process died. The other stages bound theirs by `Attempts`."""


def drive(
    job: Job,
    run: Run,
    shards: list[int],
    *,
    verbose: bool,
    close: Callable[[], int] | None = None,
    answer_stage: type[AnswerStage] = AnswerStage,
    judge_stage: type[JudgeStage] = JudgeStage,
) -> str | None:
    """Score and commit the open `shards` of `run`, showing how it goes.

    Args:
        close: called once all is committed; returns the exit code, which is told while Ray still runs.

    Returns:
        The name of the signal that came meanwhile, if one did.

    Raises:
        FFAAError: what a stage could not turn into an image's status, such as a bundle that does not fit.
    """
    before = Counter[str]()
    for commit in run.commits():
        before.update(commit.counts.statuses)
    committed, n_committed = before.total(), run.n_shards - len(shards)
    state = RunState(n_images=run.n_images, images_done=committed, statuses=before)
    with (
        libraries_diverted(verbose=verbose) as stderr,
        reaped(),
        cluster(job.config, verbose=verbose) as room,
        stop_requests(patient=True) as request,
    ):
        import ray

        shares = room.at_most(len(shards))
        progress = start_progress()
        actors = {"engine": shares.answer_actors, "MIDS": shares.judge_actors}
        metrics = RunMetrics(n_committed, len(shards), actors)

        def totals_now() -> dict[str, int]:
            totals: dict[str, int] = ray.get(progress.totals.remote(), timeout=ANSWER_S)
            for model in actors:
                metrics.loads(model, totals.get(f"{model} loads", 0))
            return totals

        def update(state: RunState) -> None:
            totals = totals_now()
            state.advance(committed + totals.get("images answered", 0), totals.get("faces answered", 0))

        with ending_told(metrics), Display(state, update, Console(file=stderr)) as display:
            watch = Watch(progress, request, job.config.run, display.tell)
            stages = _run_stages(job, shards, progress, shares, answer_stage, judge_stage)
            try:
                for came_to in watched(stages, watch.check):
                    state.statuses.update(came_to["counts"]["statuses"])
                    metrics.committed(**came_to)
            except ray.exceptions.RayError as error:
                raise told_failure(progress) or JobError(f"the job ended early: {explain(error)}") from error
            except JobError:
                if not request.received or run.open_shards():
                    raise
            with suppress(ray.exceptions.RayError):  # all is committed: what could not be told is not missed
                if lost := totals_now().get("shards lost"):
                    display.tell(f"{lost} shards were committed already: the work on them was done twice")
            if request.received and run.open_shards():
                raise stopped(request.received)
            if close:
                metrics.ended(close())
        return request.received


@contextmanager
def ending_told(metrics: RunMetrics) -> Iterator[None]:
    """Tell the exit code of an error that leaves the block."""
    try:
        yield
    except FFAAError as error:
        metrics.ended(error.exit_code)
        raise


def _run_stages(
    job: Job,
    shards: list[int],
    progress: Any,
    shares: Shares,
    answer_stage: type[AnswerStage],
    judge_stage: type[JudgeStage],
) -> Iterator[dict[str, Any]]:
    """What each shard came to, as soon as it is committed: the commit's `counts` and `engine` figures."""
    from ray.data import ActorPoolStrategy, DataContext

    from ray_jobs.score.open_shards import open_shards

    context = DataContext.get_current()
    context.target_max_block_size = None  # a shard's block is never split
    context.execution_no_progress_timeout_s = -1  # it sees whole shards only; `Watch` sees images
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with warnings.catch_warnings():
        # Ray 2.60 warns of `max_retries` and `max_task_retries`, and has no other name for them yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        results = (
            open_shards(shards)
            .map_batches(
                fetch_crop,  # type: ignore[arg-type]
                batch_size=None,
                batch_format="pyarrow",
                fn_kwargs={"job": job, "progress": progress},
                num_cpus=shares.fetch_cpus,
                memory=0,  # else another amount for each task, and Ray's processes remember every amount
                max_retries=RETRIES,
            )
            # Beside GPUs the public method refuses whole blocks, which Ray's own `map_groups` has here, too.
            .map_batches_internal(
                answer_stage,
                batch_size=None,
                batch_format="pyarrow",
                fn_constructor_kwargs={"job": job, "progress": progress},
                compute=ActorPoolStrategy(
                    size=shares.answer_actors,
                    max_tasks_in_flight_per_actor=SHARDS_IN_FLIGHT + 1,
                    max_concurrent_calls_per_actor=SHARDS_IN_FLIGHT,
                    enable_true_multi_threading=True,
                ),
                num_cpus=shares.answer_cpus,
                num_gpus=shares.answer_gpus,
                max_task_retries=-1,
            )
            .map_batches_internal(
                judge_stage,
                batch_size=None,
                batch_format="pyarrow",
                fn_constructor_kwargs={"job": job, "progress": progress},
                compute=ActorPoolStrategy(size=shares.judge_actors),
                num_cpus=shares.judge_cpus,
                num_gpus=shares.judge_gpus,
                max_task_retries=-1,
            )
        )
    for committed in results.iter_rows():
        yield json.loads(committed["came_to"])
