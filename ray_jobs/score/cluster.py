"""Joining a Ray cluster, or starting one on this machine, and dividing its resources among the stages."""

import logging
import math
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import urlsplit

from ffaa_core.engine.environment import VERBOSE
from ffaa_core.errors import ConfigurationError, FFAAError, JobError
from ray_jobs.score.config import ScoreConfig
from ray_jobs.score.ray_settings import DRIVER_SETTINGS

OOM_RETRIES = 5
"""Times a task is tried again that was killed for want of memory; Ray's own default never gives up."""
SHUTDOWN_S = 120.0
"""How long Ray may take to end. Its processes end with this one in any case."""

VERSION_MISMATCH = "Version mismatch"
"""What Ray says, in a RuntimeError, of a cluster with another version of Ray or Python."""
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

    @property
    def least_cpus(self) -> float:
        """Cores without which some stage would wait for ever."""
        return self.answer_actors * self.answer_cpus + self.judge_actors * self.judge_cpus + self.fetch_cpus

    def at_most(self, shards: int) -> Self:
        """The same, with no more actors of either kind than there are shards to do, at least one.

        Others would have nothing to do, but a cluster would start GPU nodes for them.
        """
        return replace(
            self,
            answer_actors=min(self.answer_actors, max(1, shards)),
            judge_actors=min(self.judge_actors, max(1, shards)),
        )


def divide(cpus: float, gpus: float, config: ScoreConfig) -> Shares:
    """Share out a cluster; without GPUs, the engines and MIDS run on CPUs.

    Only cropping keeps a core busy all the time; engine and MIDS reserve less than they use at times, so that
    even one core holds all three. The shares differ, or Ray Data would fuse fetching into the engine's
    process.

    Raises:
        ConfigurationError: an engine needs more GPUs than there are.
    """
    width = config.engine.tensor_parallel_size
    if gpus and width > gpus:
        raise ConfigurationError(f"engine.tensor_parallel_size is {width}, but there are {gpus:g} GPUs")
    alone = width > 1
    shares = Shares(
        fetch_cpus=1,
        answer_actors=config.run.answer_actors or max(1, int(gpus) // width),
        answer_cpus=0.5,
        answer_gpus=(width if alone else 1 - JUDGE_GPU_SHARE) if gpus else 0,
        judge_actors=config.run.judge_actors,
        judge_cpus=0.25,
        judge_gpus=JUDGE_GPU_SHARE if gpus and not alone else 0,
    )
    return shares if shares.least_cpus <= cpus else replace(shares, fetch_cpus=0.25)


def foreseen(resources: Mapping[str, float], config: ScoreConfig, *, joined: bool) -> tuple[float, float]:
    """Cores and GPUs to divide, where Ray has these `resources` now.

    A cluster that was `joined` and is said to start its GPU nodes on demand does so with the others, too:
    that it has few cores yet says nothing.
    """
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    if config.run.gpus is None:
        return cpus, gpus
    return math.inf if joined else cpus, config.run.gpus


@contextmanager
def cluster(config: ScoreConfig, *, verbose: bool) -> Iterator[Shares]:
    """Ray for the duration of the block: the cluster RAY_ADDRESS names, else one of this machine's own.

    Raises:
        ConfigurationError: this machine's own has too few cores or GPUs for the actors asked for, or the
            cluster has another version of Ray or Python, or wants a token.
        JobError: the cluster cannot be reached, or Ray does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_task_oom_retries", str(OOM_RETRIES))
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a thread that outlives Ray would start another
    address = os.environ.get("RAY_ADDRESS")
    if address:
        for name, value in DRIVER_SETTINGS.items():
            os.environ.setdefault(f"RAY_{name}", str(value))
    import ray.data
    import ray.exceptions

    level = logging.INFO if verbose else logging.CRITICAL
    logging.getLogger("ray.data").setLevel(level)
    options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": level}
    if verbose:
        options["runtime_env"] = {"env_vars": {VERBOSE: "1"}}
    if address:
        _require_reachable(address)
    else:
        options |= {"address": "local", "include_dashboard": False}
    try:
        ray.init(**options)
    except FFAAError:
        raise  # a signal's
    except Exception as error:  # on a busy machine a bare one
        where = f"join the Ray cluster at {address} (RAY_ADDRESS)" if address else "start Ray on this machine"
        refused = isinstance(error, ray.exceptions.AuthenticationError) or VERSION_MISMATCH in str(error)
        kind = ConfigurationError if refused else JobError
        raise kind(f"cannot {where}: {error}") from error
    try:
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus, gpus = foreseen(resources, config, joined=bool(address))
        shares = divide(cpus, gpus, config)
        if not address and shares.least_cpus > cpus:
            raise ConfigurationError(
                f"{shares.answer_actors} answer actors, {shares.judge_actors} judge actors and a task that "
                f"crops need {shares.least_cpus:g} cores, this machine has {cpus:g}: ask for fewer"
            )
        yield shares
    finally:
        with _time_limit(SHUTDOWN_S):
            ray.shutdown()


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End this process if the block does not, since nothing else can."""
    last_resort = threading.Timer(seconds, os._exit, (JobError.exit_code,))
    last_resort.daemon = True
    last_resort.start()
    try:
        yield
    finally:
        last_resort.cancel()


def _require_reachable(address: str) -> None:
    """Raise JobError unless something listens at `host:port`; Ray itself tries for minutes."""
    place = urlsplit("//" + address.rpartition("//")[2])
    if place.hostname is None or place.port is None:
        return
    try:
        socket.create_connection((place.hostname, place.port), timeout=10).close()
    except OSError as error:
        raise JobError(f"cannot reach the Ray cluster at {address} (RAY_ADDRESS): {error}") from error
