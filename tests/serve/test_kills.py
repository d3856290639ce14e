"""Processes of the service are killed, or stop, under load: it goes on, and is whole again by itself."""

from collections.abc import Callable, Iterator

import psutil
import pytest
from skimage import data

from ffaa_core.bundle import Bundle
from tests.fixtures.processes import wait_until
from tests.fixtures.service import RunningService, is_ready, running_service
from tests.images import png
from tests.serve.load import Load

SCRIPTED = "tests.serve.scripted:build"
BACK_S = 300
"""How long a part may take to be there again, on whatever machine."""


@pytest.fixture(scope="module")
def scripted(demo_bundle: Bundle) -> Iterator[RunningService]:
    """A service whose models answer at once."""
    with running_service(demo_bundle, import_path=SCRIPTED, faces={"mode": "whole_image"}) as service:
        yield service


@pytest.fixture(scope="module")
def real(demo_bundle: Bundle) -> Iterator[RunningService]:
    """One with the real models, whose deadlines leave time for an engine to start."""
    with running_service(demo_bundle, service={"deadline_seconds": 120}) as service:
        yield service


def kill_under_load(
    service: RunningService, find: Callable[[], list[psutil.Process]], image: bytes, told: str
) -> None:
    """Kill the one process that `find` finds, and see that it is replaced and what became of requests."""
    with Load(service, image) as load:
        load.await_scored(3, BACK_S)
        (victim,) = find()
        below = victim.children(recursive=True)
        victim.kill()
        wait_until(lambda: find() not in ([], [victim]), BACK_S, service.said)
        load.await_scored(3, BACK_S)
        wait_until(lambda: is_ready(service.url), BACK_S, service.said)
    print(told, load.told())
    load.check()
    wait_until(lambda: not any(is_there(process) for process in below), 60)


def is_there(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("deployment", ["Gateway", "Judge", "Engine"])
def test_a_part_that_is_killed_comes_back_and_no_request_is_lost(
    scripted: RunningService, picture: bytes, deployment: str
) -> None:
    kill_under_load(scripted, lambda: scripted.replicas(deployment), picture, deployment)


@pytest.mark.slow
@pytest.mark.parametrize("deployment", ["Gateway", "Judge", "Engine", "vLLM"])
def test_with_real_models_a_part_that_is_killed_comes_back_and_no_request_is_lost(
    real: RunningService, deployment: str
) -> None:
    kill_under_load(real, lambda: parts(real, deployment), png(data.astronaut()), f"real {deployment}")


def parts(service: RunningService, name: str) -> list[psutil.Process]:
    return service.engine_processes() if name == "vLLM" else service.replicas(name)


@pytest.mark.slow
def test_an_engine_that_hangs_is_replaced(real: RunningService) -> None:
    with Load(real, png(data.astronaut())) as load:
        load.await_scored(3, BACK_S)
        hanging = real.engine_process()
        hanging.suspend()
        took = wait_until(lambda: real.engine_processes() not in ([], [hanging]), BACK_S, real.said)
        load.await_scored(3, BACK_S)
    print(f"another engine was there after {took:.0f} s", load.told())
    load.check()
    assert not is_there(hanging)
