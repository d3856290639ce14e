"""Running the service on this machine, from its start to the signal that ends it."""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ffaa_core.diversion import libraries_diverted
from ffaa_core.engine.environment import VERBOSE
from ffaa_core.errors import ConfigurationError, FFAAError, JobError
from ffaa_core.reaper import reaped
from serve import proxy, proxy_bounds
from serve.applications import Applications, url
from serve.deployment import THIS_MACHINE, Deployment
from serve.keys import Keys
from serve.release import Release
from serve.rollout import roll_out
from serve.signals import Signals

SHUTDOWN_S = 60.0
"""How long Ray may take to end. Its processes end with this one in any case."""
LEAST_CPUS = 3
"""Cores that Ray is told there are at least: the deployments reserve 1.25, and two of each stand side by side
while one takes the other's place.
"""

QUICK = {
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
}
"""Variables by which Ray Serve is to spend less on each request: no thread beside its own for code that does
not block once it has loaded, calls of any length from process to process, not by way of Ray's object store,
a controller that looks around twice a second, and metrics told once a second, not ten times.
"""


def serve(read: Callable[[], Deployment], *, metrics_port: int, verbose: bool) -> int:
    """Run the service until a signal comes to end it; returns the exit code.

    Args:
        read: says what to serve; asked again, and that served instead, whenever a SIGHUP comes.
        metrics_port: where Prometheus scrapes what Ray exports; 0 is any port that is free.

    Raises:
        ConfigurationError: there are no keys, no such bundle, or the port is taken; nothing was started.
        JobError: Ray or the service does not start.
    """
    deployment, release = _prepared(read())
    _require_free(*deployment.address)
    _require_free(THIS_MACHINE, metrics_port)
    proxy_bounds.bind(deployment.config)
    signals = Signals()
    signals.handle()
    with (
        libraries_diverted(verbose=verbose) as stderr,
        reaped(),
        suppress(SystemExit),  # Ray takes SIGTERM over while it starts, and exits so
        _ray(metrics_port, verbose=verbose),
    ):
        signals.handle()

        def say(text: str) -> None:
            print(f"ffaa: {text}", file=stderr, flush=True)

        applications = Applications(deployment, say)
        applications.deploy(deployment)
        say(f"loading {release.bundle}; fingerprint {release.fingerprint}")
        say(f"metrics at {_metrics_url()}")
        if applications.await_ready(deployment, signals):
            say(f"ready at {url(deployment)}")
            while signals.wait_for_reload():
                deployment = _replaced(deployment, read, applications, signals, say)
            say("ending, when the requests under way are done")
            applications.deploy(deployment.draining())
            applications.await_drained(deployment)
    return 0


def _prepared(deployment: Deployment) -> tuple[Deployment, Release]:
    """The deployment in a form that processes in other folders understand, and what it serves.

    Raises:
        ConfigurationError: there are no keys, or no such bundle.
    """
    args = deployment.application["args"]
    release = Release.of(deployment.config)
    args["bundle"] = release.bundle
    if deployment.config.service.keys_file:
        args["service"]["keys_file"] = str(Path(deployment.config.service.keys_file).absolute())
    Keys.of(deployment.config.service)
    return Deployment(deployment.content), release


def _replaced(
    old: Deployment,
    read: Callable[[], Deployment],
    applications: Applications,
    signals: Signals,
    say: Callable[[str], None],
) -> Deployment:
    """What is served after the configuration was read again: the old one where the new is not to be had."""
    try:
        new, release = _prepared(read())
        proxy_bounds.bind(new.config)
        say(f"loading {release.bundle} beside what is served; fingerprint {release.fingerprint}")
        served = roll_out(applications, old, new, signals)
    except FFAAError as error:
        say(f"what was served is served on: {error}")
        return old
    if served is not old:
        say(f"ready at {url(served)}; fingerprint {release.fingerprint}")
    return served


def _metrics_url() -> str:
    """Where this machine's Ray tells Prometheus what its processes tell it."""
    import ray

    return f"http://{THIS_MACHINE}:{ray.nodes()[0]['MetricsExportPort']}/metrics"  # type: ignore[no-untyped-call]


def _require_free(host: str, port: int) -> None:
    """Raise ConfigurationError if somebody listens there already, who would answer in our place."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ConfigurationError(f"cannot listen at {host}, port {port}: {error.strerror}") from error


@contextmanager
def _ray(metrics_port: int, *, verbose: bool) -> Iterator[None]:
    """A Ray of this machine's own for the block, and Ray Serve's end with it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for name, value in {proxy.VARIABLE: proxy.IMPORT_PATH, **QUICK}.items():
        os.environ.setdefault(name, value)
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a thread that outlives Ray would start another
    import ray
    from ray import serve as ray_serve
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False  # else it listens at every address, not at loopback only
    level = logging.INFO if verbose else logging.CRITICAL
    options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": level}
    if verbose:
        options["runtime_env"] = {"env_vars": {VERBOSE: "1"}}
    try:
        ray.init(
            address="local",
            num_cpus=max(LEAST_CPUS, len(os.sched_getaffinity(0))),
            include_dashboard=False,
            namespace="serve",
            _metrics_export_port=metrics_port,
            **options,
        )
    except Exception as error:  # on a busy machine a bare one
        raise JobError(f"cannot start Ray on this machine: {error}") from error
    last_resort = threading.Timer(SHUTDOWN_S, os._exit, (JobError.exit_code,))
    last_resort.daemon = True
    try:
        yield
    finally:
        last_resort.start()
        ray_serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
        last_resort.cancel()
