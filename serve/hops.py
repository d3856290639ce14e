"""Calling another deployment: cancelled with its caller, bounded, and tried once more if a replica dies."""

import asyncio
import logging
from typing import Any

from ray.exceptions import RayActorError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from serve.problems import overloaded, unavailable

REPLICA_GONE = (RayActorError, TaskCancelledError)
"""What a call raises whose replica is no more, or is being stopped."""

log = logging.getLogger("ray.serve")


async def call(method: Any, *arguments: Any) -> Any:
    """What a method of a deployment's handle returns.

    Whoever cancels this cancels the call. A call whose replica dies is made once more, to another replica or
    to the one that takes its place; the caller's deadline bounds how long that is waited for.

    Raises:
        ProblemError: 503, too many calls wait for the deployment, or replicas died over this one twice.
    """
    try:
        return await _once(method, *arguments)
    except REPLICA_GONE as error:
        log.warning("a call is made once more: %s", type(error).__name__)
    try:
        return await _once(method, *arguments)
    except REPLICA_GONE as error:
        raise unavailable("a part of the service died twice over this request") from error


async def _once(method: Any, *arguments: Any) -> Any:
    response = method.remote(*arguments)
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except BackPressureError as error:
        raise overloaded("too many requests wait for the models") from error
    except DeploymentUnavailableError as error:
        raise unavailable("the models could not be loaded") from error
