"""What Ray Serve runs for this command: deploying it, and waiting until it stands as asked for."""

import http.client
import json
import math
import ssl
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from ffaa_core.errors import JobError
from ffaa_core.printable import printable
from serve.deployment import Deployment
from serve.signals import LOOK_EVERY_S, Signals

TELL_EVERY_S = 30.0
"""How often it is said what is waited for."""
LONGEST_REASON = 300
"""Characters of why a deployment is not ready."""
GRACE_S = 60.0
"""How much longer than its deadline a request under way is waited for."""


class Applications:
    """The service's applications in the Ray Serve of this machine, which listens as `deployment` says.

    `say` is told, from time to time, what is waited for.
    """

    def __init__(self, deployment: Deployment, say: Callable[[str], None]) -> None:
        from ray.serve._private.api import serve_start  # as `serve run` does with a file

        http_options = deployment.schema.http_options.model_dump()
        self._client = serve_start(http_options=http_options, proxy_location=deployment.schema.proxy_location)
        self._say = say

    def deploy(self, first: Deployment, *others: Deployment) -> None:
        """Have these, and no others, be run."""
        self._client.deploy_apps(first.beside(*others))

    def await_ready(self, deployment: Deployment, signals: Signals, limit_s: float = math.inf) -> bool:
        """Wait until it is; False if the command is to end before.

        Raises:
            JobError: it does not start, or not within `limit_s`.
        """
        begun = told = time.monotonic()
        while not signals.stop_within(LOOK_EVERY_S):
            status = _status(deployment)
            if status and status.status == "DEPLOY_FAILED":
                raise JobError(f"the service does not start: {_reason(status)}")
            if _reply(f"{url(deployment)}/readyz") is not None:
                return True
            now = time.monotonic()
            if now - begun > limit_s:
                raise JobError(
                    f"it is not ready after {limit_s:g} s (service.rollout_seconds): {_awaited(status)}"
                )
            if now - told > TELL_EVERY_S:
                told = now
                self._say(f"not ready after {now - begun:.0f} s: {_awaited(status)}")
        return False

    def await_drained(self, deployment: Deployment) -> None:
        """Wait until every gateway has done what it was doing, which takes no longer than a request may."""
        give_up_at = time.monotonic() + deployment.config.service.deadline_seconds + GRACE_S
        while time.monotonic() < give_up_at:
            status = _status(deployment)
            if status is None or status.status == "RUNNING":
                return
            time.sleep(LOOK_EVERY_S)

    def await_routed(self, deployment: Deployment) -> None:
        """Wait until requests go to it, which is a moment after it was deployed at its route."""
        host = url(deployment.placed(deployment.name, "/"))
        give_up_at = time.monotonic() + GRACE_S
        while time.monotonic() < give_up_at:
            routes = json.loads(_reply(f"{host}/-/routes") or b"{}")
            if routes.get(deployment.application["route_prefix"]) == deployment.name:
                return
            time.sleep(LOOK_EVERY_S)


def url(deployment: Deployment) -> str:
    """Where it is to be found, from this machine."""
    host, port = deployment.address
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "https" if deployment.schema.http_options.ssl_keyfile else "http"
    prefix = str(deployment.application["route_prefix"]).rstrip("/")
    return f"{scheme}://{f'[{local}]' if ':' in local else local}:{port}{prefix}"


def _status(deployment: Deployment) -> Any:
    from ray import serve as ray_serve

    return ray_serve.status().applications.get(deployment.name)


def _reason(status: Any) -> str:
    """The last line of what Ray Serve says of whatever failed, which is the error itself."""
    failed = [each.message for each in status.deployments.values() if "FAILED" in each.status]
    lines = "\n".join([*failed, status.message]).splitlines()
    return next((line.strip() for line in reversed(lines) if "Error" in line), "its log says why")


def _awaited(status: Any) -> str:
    """Which deployments are not there yet and why, in one line."""
    behind = [
        f"{name} is {each.status.value}{each.message and ': '}{each.message}"
        for name, each in (status.deployments.items() if status else ())
        if each.status != "HEALTHY"
    ]
    line = printable(" ".join("; ".join(behind).split()))[:LONGEST_REASON]
    return line or "no gateway has had a face scored yet; their logs say why"


def _reply(address: str) -> bytes | None:
    """What this very service, which may have another's certificate, answers with status 200."""
    try:
        context = ssl._create_unverified_context()
        with urllib.request.urlopen(address, timeout=10, context=context) as reply:
            body: bytes = reply.read()
            return body if reply.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
