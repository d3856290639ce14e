"""Running the service on this machine, from its start to the signal that ends it."""

import http.client
import logging
import os
import signal
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from ffaa_core.diversion import libraries_diverted
from ffaa_core.engine.environment import VERBOSE
from ffaa_core.errors import ConfigurationError, JobError
from ffaa_core.reaper import reaped
from serve.deployment import Deployment
from serve.keys import Keys
from serve.release import Release

LOOK_EVERY_S = 0.25
SHUTDOWN_S = 60.0
"""How long Ray may take to end. Its processes end with this one in any case."""
LEAST_CPUS = 2
"""Cores that Ray is told there are at least, since the deployments reserve 1.25."""


class StopRequest:
    """Whether SIGTERM or SIGINT came; a second one ends this process at once."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def handle_signals(self) -> None:
        """Take the signals, also those that a library has taken meanwhile."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def came_within(self, seconds: float) -> bool:
        """Wait for it at most so long."""
        return self._stop.wait(seconds)

    def _receive(self, number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._stop.set()


def serve(deployment: Deployment, *, verbose: bool) -> int:
    """Run the service until a signal comes; returns the exit code.

    Raises:
        ConfigurationError: there are no keys, no such bundle, or the port is taken; nothing was started.
        JobError: Ray or the service does not start.
    """
    args = deployment.application["args"]
    release = Release.of(deployment.config)
    args["bundle"] = release.bundle  # which another process opens from another folder
    if deployment.config.service.keys_file:
        args["service"]["keys_file"] = str(Path(deployment.config.service.keys_file).absolute())
    Keys.of(deployment.config.service)
    _require_free(*deployment.address)
    deployment = Deployment(deployment.content)
    stop = StopRequest()
    stop.handle_signals()
    with (
        libraries_diverted(verbose=verbose) as stderr,
        reaped(),
        suppress(SystemExit),  # Ray takes SIGTERM over while it starts, and exits so
        _ray(verbose=verbose),
    ):
        stop.handle_signals()
        _run(deployment, release, stop, stderr)
    return 0


def _run(deployment: Deployment, release: Release, stop: StopRequest, stderr: TextIO) -> None:
    from ray.serve._private.api import serve_start  # as `serve run` does with a file

    schema = deployment.schema
    client = serve_start(http_options=schema.http_options.model_dump(), proxy_location=schema.proxy_location)
    client.deploy_apps(schema)
    print(f"ffaa: loading {release.bundle}; fingerprint {release.fingerprint}", file=stderr, flush=True)
    if _is_ready(deployment, stop):
        print(f"ffaa: ready at {_url(deployment)}", file=stderr, flush=True)
        while not stop.came_within(3600):
            pass
        print("ffaa: ending, when the requests under way are done", file=stderr, flush=True)
        client.deploy_apps(deployment.draining().schema)
        _await_drained(deployment)


def _is_ready(deployment: Deployment, stop: StopRequest) -> bool:
    """Wait until it is; False if it is to end before."""
    while not stop.came_within(LOOK_EVERY_S):
        status = _status(deployment)
        if status and status.status == "DEPLOY_FAILED":
            raise JobError(f"the service does not start: {_reason(status)}")
        if _answers(f"{_url(deployment)}/readyz"):
            return True
    return False


def _await_drained(deployment: Deployment) -> None:
    """Wait until every gateway has done what it was doing, which takes no longer than a request may."""
    give_up_at = time.monotonic() + deployment.config.service.deadline_seconds + SHUTDOWN_S
    while time.monotonic() < give_up_at:
        status = _status(deployment)
        if status is None or status.status == "RUNNING":
            return
        time.sleep(LOOK_EVERY_S)


def _status(deployment: Deployment) -> Any:
    from ray import serve as ray_serve

    return ray_serve.status().applications.get(deployment.name)


def _reason(status: Any) -> str:
    """The last line of what Ray Serve says of whatever failed, which is the error itself."""
    failed = [each.message for each in status.deployments.values() if "FAILED" in each.status]
    lines = "\n".join([*failed, status.message]).splitlines()
    return next((line.strip() for line in reversed(lines) if "Error" in line), "its log says why")


def _url(deployment: Deployment) -> str:
    host, port = deployment.address
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "https" if deployment.schema.http_options.ssl_keyfile else "http"
    prefix = str(deployment.application["route_prefix"]).rstrip("/")
    return f"{scheme}://{f'[{local}]' if ':' in local else local}:{port}{prefix}"


def _answers(url: str) -> bool:
    """Whether a request to this very service, which may have another's certificate, is answered with 200."""
    try:
        context = ssl._create_unverified_context()
        with urllib.request.urlopen(url, timeout=10, context=context) as reply:
            return bool(reply.status == 200)
    except (OSError, http.client.HTTPException):
        return False


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
def _ray(*, verbose: bool) -> Iterator[None]:
    """A Ray of this machine's own for the block, and Ray Serve's end with it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a thread that outlives Ray would start another
    import ray
    from ray import serve as ray_serve

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
