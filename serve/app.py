"""The Ray Serve application: `import_path: serve.app:build` in a configuration file."""

from typing import Any

import ray
from ray import serve as ray_serve
from ray.serve import Application, Deployment

from ffaa_core.settings import from_mapping
from serve import proxy_bounds
from serve.config import ServeConfig
from serve.engine import Engine
from serve.gateway import Gateway
from serve.judge import Judge
from serve.memory import Memory
from serve.release import Release

JUDGE_GPU_SHARE = 0.1
"""MIDS beside an engine needs about 3 GiB of a GPU; `gpu_memory_utilization` leaves it that much."""

AT_HAND = 2
"""Images that an engine has for each face that it is asked about at once: as one ends the next begins.
Those that wait outside, at Ray Serve's router, are offered to it every half second only.
"""

MEMORY_CALLS = 256
"""Calls that the one memory may have under way; each takes it no time."""

OFTEN_S = 2.0
"""How often a replica is asked whether it is well: a dead one is replaced soon."""


def build(args: dict[str, Any]) -> Application:
    """The application of a configuration file's `args`, which are the sections of `ServeConfig`.

    Replicas, their scaling and their resources are Ray Serve's own: the file's `deployments`, by the names
    Gateway, Engine, Judge and Memory. Of Memory there must be one.

    Raises:
        ConfigurationError: a setting is wrong, there is no such bundle, or as `assemble`.
    """
    return assemble(Release.of(from_mapping(ServeConfig, args)))


def assemble(release: Release, engine: type[Engine] = Engine, judge: type[Judge] = Judge) -> Application:
    """The application of a release. Tests put other engines and judges in.

    Raises:
        ConfigurationError: the proxy would refuse what the gateways are to take.
    """
    proxy_bounds.require(release.config)
    service, width = release.config.service, release.config.engine.tensor_parallel_size
    gpus = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    alone = width > 1
    engine_gpus = (width if alone else 1 - JUDGE_GPU_SHARE) if gpus else 0
    judge_gpus = JUDGE_GPU_SHARE if gpus and not alone else 0
    common: dict[str, Any] = {
        "health_check_period_s": OFTEN_S,
        "graceful_shutdown_timeout_s": service.deadline_seconds,
        "logging_config": {"encoding": "JSON", "enable_access_log": False},
    }
    engines = _deployment(
        engine,
        name="Engine",
        max_ongoing_requests=AT_HAND * release.config.engine.max_concurrent_faces,
        max_queued_requests=service.max_waiting,
        ray_actor_options={"num_cpus": 0.5, "num_gpus": engine_gpus},
        **common,
    )
    judges = _deployment(
        judge,
        name="Judge",
        max_ongoing_requests=service.max_requests,
        max_queued_requests=service.max_waiting,
        ray_actor_options={"num_cpus": 0.25, "num_gpus": judge_gpus},
        **common,
    )
    memory = _deployment(
        Memory,
        name="Memory",
        max_ongoing_requests=MEMORY_CALLS,
        max_queued_requests=service.max_requests,
        ray_actor_options={"num_cpus": 0},
        **common,
    )
    gateways = _deployment(
        ray_serve.ingress()(Gateway),
        name="Gateway",
        # Far above what it admits, so that it refuses by itself; Serve's own bounds are the last resort.
        max_ongoing_requests=4 * service.max_requests + 64,
        max_queued_requests=4 * service.max_requests + 64,
        backpressure_config={"retry_after_s": service.retry_after_seconds},
        ray_actor_options={"num_cpus": 0.5},
        **common,
    )
    application: Application = gateways.bind(
        release, engines.bind(release), judges.bind(release), memory.bind(service)
    )
    return application


def _deployment(of: type, **options: Any) -> Deployment:
    return ray_serve.deployment(**options)(of)
