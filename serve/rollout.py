"""A new configuration in place of the one that is served, without a request lost.

The new application is started beside the old one, at a route that nobody knows. Once it is ready it takes the
old one's route, the old one finishes what it has, and goes. A request is answered by one of them from its
beginning to its end, and so is never of two fingerprints.
"""

import re

from ffaa_core.errors import ConfigurationError, JobError
from serve.applications import Applications
from serve.deployment import Deployment
from serve.signals import Signals

SETTLE_S = 2.0
"""How long a request may take from the proxy to a gateway that has just lost its route."""


def roll_out(applications: Applications, old: Deployment, new: Deployment, signals: Signals) -> Deployment:
    """Serve `new` in the place of `old`; returns which of the two is served now, under its new name.

    Raises:
        ConfigurationError: `new` listens elsewhere, or is not such that it can run beside `old`.
        JobError: it does not start, or not in time. Here, too, `old` goes on.
    """
    if new.address != old.address or new.schema.http_options != old.schema.http_options:
        raise ConfigurationError(
            "http_options can be changed only by ending the service and starting it anew"
        )
    name, route = _next_name(old.name), str(new.application["route_prefix"])
    beside, new = new.placed(name, f"/{name}"), new.placed(name, route)
    try:
        applications.deploy(old, beside)
        is_ready = applications.await_ready(beside, signals, new.config.service.rollout_seconds)
    except JobError:
        applications.deploy(old)
        raise
    if not is_ready:
        return old
    aside = old.placed(old.name, None)
    applications.deploy(aside, new)
    applications.await_routed(new)
    signals.stop_within(SETTLE_S)
    applications.deploy(aside.draining(), new)
    applications.await_drained(aside)
    applications.deploy(new)
    return new


def _next_name(name: str) -> str:
    """`ffaa` is followed by `ffaa-2`, that by `ffaa-3`."""
    stem, number = re.fullmatch(r"(.*?)(?:-(\d+))?", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{stem}-{int(number or 1) + 1}"
