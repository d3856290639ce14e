"""Replicas that die over a request, and the image that kills them. The models are stand-ins."""

import asyncio
import hashlib

import numpy as np
import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import ActorUnavailableError, RayActorError, TaskCancelledError

from tests.images import png
from tests.serve.asking import problem, score, until
from tests.serve.stand_ins import Service


@pytest.fixture(scope="module")
def other_pictures() -> tuple[bytes, bytes]:
    return png(np.zeros((40, 40, 3), np.uint8)), png(np.ones((40, 40, 3), np.uint8))


def grpc_error(code: StatusCode) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata())


@pytest.mark.parametrize(
    ("gone", "is_death"),
    [
        (RayActorError(), True),
        (ActorUnavailableError("gone", None), True),  # Ray Serve's word for what gRPC finds unavailable
        (grpc_error(StatusCode.CANCELLED), False),
        (TaskCancelledError(), False),
        (asyncio.CancelledError(), False),
    ],
)
async def test_a_call_whose_replica_is_gone_is_made_once_more_and_only_a_death_makes_suspect(
    service: Service, picture: bytes, gone: BaseException, is_death: bool
) -> None:
    service.hops.fail_with = [gone]
    assert (await score(service, picture)).json()["status"] == "scored"
    service.hops.fail_with = [gone, gone]
    reply = await score(service, picture)
    assert (reply.status_code, problem(reply)) == (503, "unavailable")
    assert (hashlib.sha256(picture).hexdigest() in service.gateway._suspects) == is_death


async def test_a_call_that_grpc_refuses_is_a_fault_of_ours_and_not_made_again(
    service: Service, picture: bytes
) -> None:
    service.hops.fail_with = [grpc_error(StatusCode.RESOURCE_EXHAUSTED)]
    assert (await score(service, picture)).status_code == 500
    assert hashlib.sha256(picture).hexdigest() not in service.gateway._suspects


async def test_an_image_over_which_the_engine_dies_again_and_again_is_not_put_to_it_any_more(
    service: Service, picture: bytes
) -> None:
    for deaths in (2, 1):  # the second time it is alone, and tried once
        service.hops.fail_with = [RayActorError()] * deaths
        reply = await score(service, picture)
        assert (reply.status_code, problem(reply)) == (503, "unavailable")
        assert service.hops.fail_with == []
    service.hops.fail_with = [RayActorError()]
    row = (await score(service, picture)).json()
    assert row["status"] == "answer_failed"
    assert "the engine died over the image before" in row["status_detail"]
    assert len(service.hops.fail_with) == 1


async def test_an_image_that_is_answered_after_a_death_is_as_good_as_any(
    service: Service, picture: bytes
) -> None:
    for _ in range(3):
        service.hops.fail_with = [RayActorError()]
        assert (await score(service, picture)).json()["status"] == "scored"


async def test_suspect_images_go_to_the_engine_one_at_a_time_and_others_go_on(
    service: Service, picture: bytes, other_pictures: tuple[bytes, bytes]
) -> None:
    for suspect in other_pictures:
        service.hops.fail_with = [RayActorError()] * 2
        await score(service, suspect)
    gate = service.hops.engine.gate = asyncio.Event()
    requests = [asyncio.ensure_future(score(service, each)) for each in (*other_pictures, picture)]
    await until(lambda: service.hops.engine.begun == 6 and waits_for(service.gateway._suspects.turn))
    gate.set()
    assert [(await request).json()["status"] for request in requests] == ["scored"] * 3


def waits_for(lock: asyncio.Lock) -> bool:
    return bool(vars(lock)["_waiters"])
