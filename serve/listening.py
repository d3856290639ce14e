"""Keeps Ray Serve's replicas from listening to more than the cluster they are of.

Each opens a gRPC server at every address of its machine. By it the others call the replica, and it unpickles
what it is sent without asking from whom it comes. Nothing public says where it is to listen.
"""

from typing import Any

import ray
from ray._common.network_utils import build_address  # type: ignore[attr-defined]
from ray._common.tls_utils import add_port_to_grpc_server


def listen_to_the_cluster() -> None:
    """Have the replica whose constructor calls this listen only where Ray says that it is: at loopback if all
    of Ray is on this machine.

    Raises:
        RuntimeError: this Ray Serve listens in another way.
    """
    from ray.serve._private import replica as module

    replica: Any = module
    if replica.add_port_to_grpc_server not in (add_port_to_grpc_server, _add_port_of_the_node):
        raise RuntimeError("this version of Ray Serve opens its replicas' ports in a way that is not known")
    replica.add_port_to_grpc_server = _add_port_of_the_node


def _add_port_of_the_node(server: Any, address: str) -> int:
    node = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    at_node = build_address(node, int(address.rpartition(":")[2]))
    port: int = add_port_to_grpc_server(server, at_node)  # type: ignore[no-untyped-call]
    return port
