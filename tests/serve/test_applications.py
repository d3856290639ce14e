"""Waiting for what Ray Serve runs: it is said what is waited for, and a rollout has an end."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.common import DeploymentStatus

from ffaa_core.errors import JobError
from serve import applications
from serve.applications import Applications
from serve.deployment import Deployment
from serve.signals import Signals


def status(**deployments: tuple[str, str]) -> Any:
    """What Ray Serve says of an application: of each deployment its status and why."""
    told = {
        name: SimpleNamespace(status=DeploymentStatus(at), message=why)
        for name, (at, why) in deployments.items()
    }
    return SimpleNamespace(status="DEPLOYING", message="", deployments=told)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said by `waiting`, which says it soon."""
    monkeypatch.setattr(applications, "TELL_EVERY_S", 0.0)
    monkeypatch.setattr(applications, "LOOK_EVERY_S", 0.01)
    return []


def waiting(said: list[str]) -> Applications:
    """As it is once Ray Serve has been started."""
    waits = object.__new__(Applications)
    waits._say = said.append
    return waits


def deployment() -> Deployment:
    return Deployment.read(None, {"service.anonymous": True}, {"port": 1})


@pytest.mark.parametrize(
    ("standing", "told"),
    [
        (
            status(Engine=("UPDATING", "1 replica waits\n for 1 GPU"), Judge=("HEALTHY", "")),
            "Engine is UPDATING: 1 replica waits for 1 GPU",
        ),
        (status(Engine=("HEALTHY", ""), Gateway=("HEALTHY", "")), "no gateway has had a face scored yet"),
        (None, "no gateway"),
    ],
)
def test_it_is_said_what_is_waited_for(
    said: list[str], monkeypatch: pytest.MonkeyPatch, standing: Any, told: str
) -> None:
    monkeypatch.setattr(applications, "_status", lambda _: standing)
    replies = iter([None, None, b"{}"])
    monkeypatch.setattr(applications, "_reply", lambda _: next(replies))
    assert waiting(said).await_ready(deployment(), Signals())
    assert len(said) == 2
    for line in said:
        assert line.startswith("not ready after 0 s: ")
        assert told in line
        assert line.isprintable()


def test_what_is_not_ready_in_time_is_given_up(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applications, "_status", lambda _: status(Engine=("UPDATING", "no GPU is free")))
    monkeypatch.setattr(applications, "_reply", lambda _: None)
    with pytest.raises(JobError, match=r"not ready after 0.1 s \(service.rollout_seconds\).*no GPU is free"):
        waiting(said).await_ready(deployment(), Signals(), 0.1)
