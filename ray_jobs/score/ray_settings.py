"""Settings of Ray under which a machine that vanishes is noticed in time.

By Ray's defaults a node is given up after a good minute, and a task on it is waited for until gRPC finds the
connection dead: it pings after 5 minutes of silence, and waits 2 minutes for the answer.
"""

from collections.abc import Mapping
from types import MappingProxyType

RAY_SETTINGS: Mapping[str, int] = MappingProxyType(
    {
        "health_check_period_ms": 3000,
        "health_check_timeout_ms": 10000,
        "health_check_failure_threshold": 3,
        "grpc_client_keepalive_time_ms": 15000,
        "grpc_client_keepalive_timeout_ms": 15000,
    }
)
"""The `--system-config` of a cluster's head, which hands it to every other process of the cluster."""

DRIVER_SETTINGS: Mapping[str, int] = MappingProxyType(
    {
        "grpc_client_keepalive_time_ms": 65000,
        "grpc_client_keepalive_timeout_ms": 15000,
    }
)
"""What a driver has of its own, where the head says nothing: a ping as often as Ray's processes put up with.
On more than one a minute they end the connection, and the task behind it.
"""


def ray_settings() -> dict[str, int]:
    """What of `RAY_SETTINGS` holds in this process; in a cluster's, once it has joined it."""
    import ray

    return {name: getattr(ray._config, name)() for name in RAY_SETTINGS}
