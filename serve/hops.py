"""Calling another deployment: cancelled with its caller, bounded, and tried once more if a replica dies."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from grpc import StatusCode
from grpc.aio import AioRpcError
from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from serve.problems import overloaded, unavailable


class _StoppedError(Exception):
    """The replica was being stopped, and cancelled the call."""


REPLICA_GONE = (RayActorError, TaskCancelledError, _StoppedError)
"""What a call raises whose replica is no more, or is being stopped."""

FULL = "too many requests wait for the models"
NOT_LOADED = "the models could not be loaded"

log = logging.getLogger("ray.serve")


async def call(
    method: Any, *arguments: Any, tries: int = 2, on_death: Callable[[], None] | None = None
) -> Any:
    """What a method of a deployment's handle returns.

    Whoever cancels this cancels the call. A call whose replica dies is made once more, to another replica or
    to the one that takes its place; the caller's deadline bounds how long that is waited for.

    Args: tries: how often the call is made at most.
        on_death: called whenever a replica died over it.

    Raises:
        ProblemError: 503, too many calls wait for the deployment, or replicas died over each try.
    """
    for tries_left in reversed(range(tries)):
        try:
            return await _once(method, *arguments)
        except REPLICA_GONE as error:
            if on_death and isinstance(error, RayActorError):
                on_death()
            if not tries_left:
                raise unavailable("a part of the service died over this request") from error
            log.warning("a call is made once more: %s", type(error).__name__)
    raise AssertionError


async def stream(method: Any, *arguments: Any) -> AsyncGenerator[Any]:
    """What a method of a deployment's handle yields; to close this, too, cancels the call.

    It is called once more, as `call` does, only where nothing of it has come yet.

    Raises:
        ProblemError: as `call` does.
        Exception: what the method raised, without what Ray puts around it.
    """
    for is_last in (False, True):
        begun = False
        try:
            async with aclosing(_stream_once(method, *arguments)) as items:
                async for item in items:
                    begun = True
                    yield item
        except REPLICA_GONE as error:
            if begun or is_last:
                raise unavailable("a part of the service died over this request") from error
            log.warning("a call is made once more: %s", type(error).__name__)
        else:
            return


async def _stream_once(method: Any, *arguments: Any) -> AsyncGenerator[Any]:
    response = method.options(stream=True).remote(*arguments)
    try:
        async for item in response:
            yield item
    except GeneratorExit:
        response.cancel()
        raise
    except asyncio.CancelledError:
        _require_cancelled()
        response.cancel()
        raise
    except AioRpcError as error:
        _require_unstopped(error)
        raise
    except RayTaskError as error:
        raise error.cause from error
    except BackPressureError as error:
        raise overloaded(FULL) from error
    except DeploymentUnavailableError as error:
        raise unavailable(NOT_LOADED) from error


async def _once(method: Any, *arguments: Any) -> Any:
    response = method.remote(*arguments)
    try:
        return await response
    except asyncio.CancelledError:
        _require_cancelled()
        response.cancel()
        raise
    except AioRpcError as error:
        _require_unstopped(error)
        raise
    except BackPressureError as error:
        raise overloaded(FULL) from error
    except DeploymentUnavailableError as error:
        raise unavailable(NOT_LOADED) from error


def _require_cancelled() -> None:
    """Raise _StoppedError if it is not this task that was cancelled, but the call, where it ran."""
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        raise _StoppedError from None


def _require_unstopped(error: AioRpcError) -> None:
    """Raise _StoppedError where gRPC says so; of a replica that died Ray Serve makes a RayActorError."""
    if error.code() is StatusCode.CANCELLED:
        raise _StoppedError from error
