"""Looks into a running service from a process of its own; run as a module, with the address of its Ray.

For every line on standard input, the name of a deployment and of a method without arguments, it prints what
the method returns, as JSON. A question that does not get through is put again.
"""

import json
import logging
import sys
import time

import ray
from ray import serve as ray_serve

from serve.deployment import NAME

TRIES = 10


def main() -> None:
    """Until standard input ends."""
    ray.init(address=sys.argv[1], namespace="serve", log_to_driver=False, logging_level=logging.CRITICAL)
    for line in sys.stdin:
        deployment, method = line.split()
        print(json.dumps(ask(deployment, method)), flush=True)


def ask(deployment: str, method: str) -> object:
    """What the method returns."""
    for tries_left in reversed(range(TRIES)):
        try:
            handle = ray_serve.get_deployment_handle(deployment, NAME)
            return getattr(handle, method).remote().result(timeout_s=60)
        except Exception as error:
            print(f"{deployment} {method}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            if not tries_left:
                raise
            time.sleep(0.5)
    raise AssertionError


if __name__ == "__main__":
    main()
