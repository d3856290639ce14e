"""Another configuration takes the place of the one that is served."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ffaa_core.bundle import Bundle
from ffaa_core.errors import ConfigurationError
from ffaa_core.settings import AnswerSettings, FaceSettings, ScoringSettings, fingerprint
from serve.deployment import Deployment
from serve.rollout import _next_name, roll_out
from serve.signals import Signals
from tests.fixtures.command import FAST
from tests.fixtures.processes import wait_until
from tests.fixtures.service import RunningService, running_service
from tests.serve.load import Load

SCRIPTED = "tests.serve.scripted:build"
LIMIT_S = 300


@pytest.fixture(scope="module")
def service(demo_bundle: Bundle) -> Iterator[RunningService]:
    with running_service(demo_bundle, import_path=SCRIPTED, faces={"mode": "whole_image"}) as service:
        yield service


def configure(service: RunningService, **application: Any) -> None:
    """Change what the file says of the application, and have the service read it."""
    file = service.folder / "serve.yaml"
    content = yaml.safe_load(file.read_text())
    content["applications"][0] |= application
    file.write_text(yaml.safe_dump(content))
    service.process.send_signal(signal.SIGHUP)


def fingerprint_of(bundle: Bundle, open_question: int) -> str:
    answers = AnswerSettings(max_tokens=int(FAST[1]), open_question=open_question)
    return fingerprint(
        ScoringSettings(faces=FaceSettings(mode="whole_image"), answers=answers), bundle.digests
    )


def test_names_are_counted_up() -> None:
    assert [_next_name(name) for name in ("ffaa", "ffaa-2", "a-b", "a-9")] == [
        "ffaa-2",
        "ffaa-3",
        "a-b-2",
        "a-10",
    ]


class Ending:
    """A Ray Serve that is asked to end before anything is ready."""

    def __init__(self) -> None:
        self.deployed: list[list[str]] = []

    def deploy(self, *deployments: Deployment) -> None:
        self.deployed.append([each.name for each in deployments])

    def await_ready(self, deployment: Deployment, signals: Signals, limit_s: float) -> bool:
        return False


def deployment(port: int) -> Deployment:
    return Deployment.read(None, {"service.anonymous": True}, {"port": port})


def test_an_end_that_comes_first_leaves_what_is_served() -> None:
    ending, old = Ending(), deployment(81)
    assert roll_out(ending, old, deployment(81), Signals()) is old  # type: ignore[arg-type]
    assert ending.deployed == [["ffaa", "ffaa-2"]]


def test_it_goes_on_listening_where_it_does() -> None:
    ending = Ending()
    with pytest.raises(ConfigurationError, match="http_options"):
        roll_out(ending, deployment(81), deployment(82), Signals())  # type: ignore[arg-type]
    assert ending.deployed == []


@pytest.mark.slow
def test_a_new_configuration_takes_over_under_load_and_no_request_is_lost(
    service: RunningService, picture: bytes, demo_bundle: Bundle
) -> None:
    args = {"bundle": str(demo_bundle.path), "faces": {"mode": "whole_image"}}
    before = service.replicas("Gateway")
    with Load(service, picture) as load:
        load.await_scored(3, LIMIT_S)
        configure(service, args=args | {"answers": {"open_question": 1}})
        wait_until(lambda: service.said().count("ready at") == 2, LIMIT_S, service.said)
        load.await_scored(3, LIMIT_S)
    print(load.told())
    assert load.failures == []
    old, new = (fingerprint_of(demo_bundle, open_question) for open_question in (0, 1))
    for replies in load.replies:
        assert {reply.status_code for reply in replies} == {200}, load.told()
        told = [reply.json()["fingerprint"] for reply in replies]
        assert told == sorted(told, key=[old, new].index)
        assert set(told) == {old, new}
        assert [reply.headers["FFAA-Fingerprint"] for reply in replies] == told
    wait_until(lambda: not any(each.is_running() for each in before), LIMIT_S)
    assert httpx.get(f"{service.url}/ffaa-2/readyz").status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize(
    ("application", "told"),
    [
        ({"args": {"bundle": "/no/such/bundle"}}, "/no/such/bundle"),
        ({"args": {"face": {}}}, "there is no setting face"),
        ({"import_path": "tests.serve.scripted:nothing"}, "does not start"),
    ],
)
def test_what_cannot_be_served_leaves_what_is_served(
    service: RunningService, application: dict[str, Any], told: str
) -> None:
    file = service.folder / "serve.yaml"
    sound = file.read_text()
    served = httpx.get(f"{service.url}/readyz").json()
    refused = service.said().count("is served on")
    configure(service, **application)
    wait_until(lambda: service.said().count("is served on") > refused, LIMIT_S, service.said)
    assert told in service.said().splitlines()[-1]
    assert httpx.get(f"{service.url}/readyz").json() == served
    Path(file).write_text(sound)
