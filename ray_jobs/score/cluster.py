"""Joining a Ray cluster, or starting one on this machine, and dividing its resources among the stages."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray_jobs.score.config import ScoreConfig

JUDGE_GPU_SHARE = 0.1
"""MIDS beside an engine needs about 3 GiB of a GPU; `gpu_memory_utilization` leaves it that much."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What Ray reserves for one task of fetch+crop, and for each of how many actors of the others."""

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
def cluster(*, verbose: bool) -> Iterator[None]:
    """Ray for the duration of the block: the cluster RAY_ADDRESS names, else one of this machine's own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray.data

    from ffaa_core.engine.environment import VERBOSE

    level = logging.INFO if verbose else logging.CRITICAL
    logging.getLogger("ray.data").setLevel(level)
    options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": level}
    if verbose:
        options["runtime_env"] = {"env_vars": {VERBOSE: "1"}}
    if not os.environ.get("RAY_ADDRESS"):
        options |= {"address": "local", "num_cpus": max(2, os.cpu_count() or 1), "include_dashboard": False}
    ray.init(**options)
    try:
        yield
    finally:
        ray.shutdown()
