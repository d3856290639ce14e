"""What Ray's processes need in their environment so that a machine that vanishes is noticed in time.

By Ray's defaults a node is given up after a good minute, and a task on it is waited for until gRPC finds the
connection dead: it pings after 5 minutes of silence, and waits 2 minutes for the answer.
"""

from collections.abc import Mapping
from types import MappingProxyType

RAY_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "RAY_health_check_period_ms": "3000",
        "RAY_health_check_timeout_ms": "10000",
        "RAY_health_check_failure_threshold": "3",
        "RAY_grpc_client_keepalive_time_ms": "20000",
        "RAY_grpc_client_keepalive_timeout_ms": "20000",
    }
)
"""For every node of a cluster before Ray starts there, and for the driver."""

DRIVER_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "RAY_grpc_client_keepalive_time_ms": "65000",
        "RAY_grpc_client_keepalive_timeout_ms": "15000",
    }
)
"""For a driver that finds neither in its environment and cannot know how the nodes were started: as often as
any Ray puts up with. Without the above Ray takes pings within a minute for abuse, and ends the connection and
the task behind it.
"""
