"""A configuration that cannot take the place of the one that is served leaves it, and it is said why."""

import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from ffaa_core.bundle import Bundle
from tests.fixtures.service import RunningService, running_service, until

LIMIT_S = 10


@pytest.fixture(scope="module")
def service(demo_bundle: Bundle) -> Iterator[RunningService]:
    scripted = "tests.serve.scripted:build"
    with running_service(demo_bundle, import_path=scripted, faces={"mode": "whole_image"}) as service:
        yield service


def refusal(service: RunningService, **application: Any) -> str:
    """What is said of a configuration that is the served one but for this, and is not served."""
    file = service.folder / "serve.yaml"
    sound, served = file.read_text(), httpx.get(f"{service.url}/readyz").json()
    content = yaml.safe_load(sound)
    content["applications"][0]["args"] |= application.pop("args")
    content["applications"][0] |= application
    file.write_text(yaml.safe_dump(content))
    said = service.said().count("is served on")
    service.process.send_signal(signal.SIGHUP)
    until(lambda: service.said().count("is served on") > said, 10 * LIMIT_S, service.folder)
    file.write_text(sound)
    assert httpx.get(f"{service.url}/readyz").json() == served
    return service.said().splitlines()[-1]


@pytest.mark.slow
def test_one_for_which_there_is_no_room_is_given_up(service: RunningService) -> None:
    large = [{"name": "Engine", "ray_actor_options": {"num_cpus": 1000}}]
    told = refusal(service, args={"service": {"rollout_seconds": LIMIT_S}}, deployments=large)
    assert f"not ready after {LIMIT_S} s (service.rollout_seconds): Engine is UPDATING" in told


@pytest.mark.slow
def test_one_whose_bodies_the_proxy_would_refuse_is_not_tried(service: RunningService) -> None:
    assert "FFAA_PROXY_BODY_BYTES" in refusal(service, args={"decode": {"max_bytes": 2**27}})
