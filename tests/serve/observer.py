"""Looks into a running service from a process of its own; run as a module in the service's RAY_TMPDIR.

For every line on standard input, the name of a deployment and of a method without arguments, it prints what
the method returns, as JSON.
"""

import json
import logging
import sys

import ray
from ray import serve as ray_serve

from serve.deployment import NAME


def main() -> None:
    """Until standard input ends."""
    ray.init(address="auto", namespace="serve", log_to_driver=False, logging_level=logging.CRITICAL)
    for line in sys.stdin:
        deployment, method = line.split()
        handle = ray_serve.get_deployment_handle(deployment, NAME)
        answer = getattr(handle, method).remote().result(timeout_s=60)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
