"""Joining a Ray cluster, or starting one on this machine, and dividing its resources among the stages."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from ray_jobs.score.config import ScoreConfig

JUDGE_GPU_SHARE = 0.1
"""MIDS beside an engine needs about 3 GiB of a GPU; `gpu_memory_utilization` leaves it that much."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What Ray reserves for one task of fetch+crop and one actor of the others, and how many actors there
    are.
    """

    fetch_cpus: float
    answer_actors: int
    answer_cpus: float
    answer_gpus: float
    judge_actors: int
    judge_cpus: float
    judge_gpus: float


def divide(gpus: float, config: ScoreConfig) -> Shares:
    """Share out a cluster with this many GPUs; without any, the engines and MIDS run on CPUs.

    Only cropping keeps a core busy all the time; engine and MIDS reserve less than they use at times, so that
    two cores hold all three. The shares differ, or Ray Data would fuse fetching into the engine's process.
    """
    width = config.engine.tensor_parallel_size
    alone = width > 1
    return Shares(
        fetch_cpus=1,
        answer_actors=config.run.answer_actors or max(1, int(gpus) // width),
        answer_cpus=0.5,
        answer_gpus=(width if alone else 1 - JUDGE_GPU_SHARE) if gpus else 0,
        judge_actors=config.run.judge_actors,
        judge_cpus=0.25,
        judge_gpus=JUDGE_GPU_SHARE if gpus and not alone else 0,
    )


@contextmanager
def libraries_diverted(*, verbose: bool) -> Iterator[TextIO]:
    """Standard error for our own words, while all else that this process prints goes to a log file.

    Ray's core writes to the descriptors themselves, past Python's logging. The file is named if the block
    fails, and removed otherwise. With `verbose` nothing is diverted.
    """
    if verbose:
        yield sys.stderr
        return
    with ExitStack() as stack:
        ours = stack.enter_context(os.fdopen(os.dup(2), "w", encoding="utf-8"))
        stdout = stack.enter_context(os.fdopen(os.dup(1), "w"))
        log = stack.enter_context(
            tempfile.NamedTemporaryFile(prefix="ffaa-score-", suffix=".log", delete=False)
        )
        _point_standard_streams(log.fileno(), log.fileno())
        try:
            yield ours
        except BaseException:
            print(f"ffaa: the libraries' own messages are in {log.name}", file=ours)
            raise
        else:
            os.unlink(log.name)
        finally:
            _point_standard_streams(stdout.fileno(), ours.fileno())


def _point_standard_streams(stdout: int, stderr: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)


@contextmanager
def cluster(*, verbose: bool) -> Iterator[None]:
    """Ray for the duration of the block: the cluster RAY_ADDRESS names, else one of this machine's own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray.data

    level = logging.INFO if verbose else logging.CRITICAL
    logging.getLogger("ray.data").setLevel(level)
    address = os.environ.get("RAY_ADDRESS")
    local: dict[str, Any] = (
        {} if address else {"num_cpus": max(2, os.cpu_count() or 1), "include_dashboard": False}
    )
    ray.init(
        address=address or "local",
        log_to_driver=verbose,
        logging_level=level,
        configure_logging=True,
        **local,
    )
    try:
        yield
    finally:
        ray.shutdown()
