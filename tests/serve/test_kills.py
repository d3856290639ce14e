"""Processes of the service are killed, or stop, under load: it goes on, and is whole again by itself."""

from collections.abc import Iterator

import psutil
import pytest
from skimage import data

from ffaa_core.bundle import Bundle
from tests.fixtures.processes import wait_until
from tests.fixtures.service import RunningService, running_service
from tests.images import png
from tests.serve.load import BACK_S, Load, is_there, kill_under_load

SCRIPTED = "tests.serve.scripted:build"


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


@pytest.mark.slow
@pytest.mark.parametrize("deployment", ["Gateway", "Judge", "Engine"])
def test_a_part_that_is_killed_comes_back_and_no_request_is_lost(
    scripted: RunningService, picture: bytes, deployment: str
) -> None:
    kill_under_load(
        scripted, lambda: scripted.replicas(deployment), picture, impatient=deployment != "Gateway"
    )


@pytest.mark.slow
@pytest.mark.parametrize("deployment", ["Gateway", "Judge", "Engine", "vLLM"])
def test_with_real_models_a_part_that_is_killed_comes_back_and_no_request_is_lost(
    real: RunningService, deployment: str
) -> None:
    kill_under_load(
        real, lambda: parts(real, deployment), png(data.astronaut()), impatient=deployment != "Gateway"
    )


def parts(service: RunningService, name: str) -> list[psutil.Process]:
    return service.engine_processes() if name == "vLLM" else service.replicas(name)


@pytest.mark.slow
def test_an_engine_that_hangs_is_replaced(real: RunningService) -> None:
    with Load(real, png(data.astronaut())) as load:
        load.await_answered(3, BACK_S)
        hanging = real.engine_process()
        hanging.suspend()
        took = wait_until(lambda: real.engine_processes() not in ([], [hanging]), BACK_S, real.said)
        load.await_answered(3, BACK_S)
    print(f"another engine was there after {took:.0f} s", load.told())
    load.check()
    assert not is_there(hanging)
