"""Another configuration takes the place of the one that is served."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ffaa_core.bundle import Bundle
from ffaa_core.bundle.demo import write_demo_bundle
from ffaa_core.errors import ConfigurationError
from ffaa_core.settings import AnswerSettings, FaceSettings, ScoringSettings, fingerprint
from serve.deployment import Deployment
from serve.rollout import _next_name, roll_out
from serve.signals import Signals
from tests.fixtures.command import FAST
from tests.fixtures.processes import wait_until
from tests.fixtures.service import RunningService, running_service
from tests.serve.chatting import SAID
from tests.serve.load import Conversations, Load
from tests.serve.scripted import match_score

SCRIPTED = "tests.serve.scripted:build"
LIMIT_S = 300


WHOLE: dict[str, Any] = {"faces": {"mode": "whole_image"}}


@pytest.fixture(scope="module")
def service(demo_bundle: Bundle) -> Iterator[RunningService]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFAA_TEST_ANSWER_S", "0.2")  # something is under way at any time
        with running_service(demo_bundle, import_path=SCRIPTED, **WHOLE) as service:
            yield service


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_demo_bundle(tmp_path_factory.mktemp("bundle") / "other", seed=1)


def configure(service: RunningService, **application: Any) -> None:
    """Change what the file says of the application, and have the service read it."""
    file = service.folder / "serve.yaml"
    content = yaml.safe_load(file.read_text())
    content["applications"][0] |= application
    file.write_text(yaml.safe_dump(content))
    service.process.send_signal(signal.SIGHUP)


def take_over(service: RunningService, **application: Any) -> None:
    """The same, and wait until that is served and what was served before is gone."""
    before, ready = service.replicas("Gateway"), service.said().count("ready at")
    configure(service, **application)
    wait_until(lambda: service.said().count("ready at") > ready, LIMIT_S, service.said)
    wait_until(lambda: not any(each.is_running() for each in before), LIMIT_S)


def served(service: RunningService) -> str:
    """The fingerprint of what is served."""
    return str(httpx.get(f"{service.url}/readyz").json()["fingerprint"])


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
    args = {"bundle": str(demo_bundle.path), "answers": {"open_question": 1}} | WHOLE
    with Load(service, picture) as load:
        load.await_answered(3, LIMIT_S)
        take_over(service, args=args)
        load.await_answered(3, LIMIT_S)
    print(load.told())
    old, new = (fingerprint_of(demo_bundle, open_question) for open_question in (0, 1))
    require_one_after_the_other(load, old, new)
    require_of_one_each(load)
    assert httpx.get(f"{service.url}/ffaa-2/readyz").status_code == 404


@pytest.mark.slow
def test_a_new_bundle_takes_over_under_load_and_no_reply_is_of_both(
    service: RunningService, picture: bytes, other_bundle: Bundle
) -> None:
    old, new = served(service), fingerprint_of(other_bundle, 0)
    conversations = Conversations(service, picture, clients=1)
    with Load(service, picture) as load, conversations:
        for each in (load, conversations):
            each.await_answered(3, LIMIT_S)
        take_over(service, args={"bundle": str(other_bundle.path)} | WHOLE)
        for each in (load, conversations):
            each.await_answered(3, LIMIT_S)
    print(load.told(), conversations.told())
    require_one_after_the_other(load, old, new)
    require_one_after_the_other(conversations, old, new)
    require_of_one_each(load)
    for reply in conversations.all():
        require_of_one_and_whole(reply)


def require_one_after_the_other(load: Load, old: str, new: str) -> None:
    """Every request is answered by the models, and to no client the old ones come back."""
    assert load.failures == []
    for replies in load.replies:
        assert {reply.status_code for reply in replies} == {200}, load.told()
        told = [reply.headers["FFAA-Fingerprint"] for reply in replies]
        assert told == sorted(told, key=[old, new].index)
        assert set(told) == {old, new}


def require_of_one_each(load: Load) -> None:
    """The gateway, engine and judge of a verdict are of the release that it names."""
    for reply in load.all():
        row, fingerprint = reply.json(), reply.headers["FFAA-Fingerprint"]
        (face,) = row["faces"]
        assert row["fingerprint"] == fingerprint
        assert face["reasoning"] == f"It was scripted for {fingerprint}."
        assert face["match_score"] == pytest.approx(match_score(fingerprint), abs=1e-9)


def require_of_one_and_whole(reply: httpx.Response) -> None:
    """What was streamed names one release from its first chunk to its last, and is of it."""
    *lines, last = re.findall("^data: (.*)$", reply.text, re.MULTILINE)
    assert last == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    assert {chunk["system_fingerprint"] for chunk in chunks} == {reply.headers["FFAA-Fingerprint"]}
    words = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert words == f"{reply.headers['FFAA-Fingerprint']}:{SAID}"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.slow
def test_an_engine_is_given_another_beside_it_by_its_own_load(
    service: RunningService, picture: bytes
) -> None:
    soon = {"upscale_delay_s": 1, "downscale_delay_s": 5, "metrics_interval_s": 1, "look_back_period_s": 2}
    scaling = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 1} | soon
    take_over(service, deployments=[{"name": "Engine", "autoscaling_config": scaling}])
    wait_until(lambda: replicas(service) == ONE_OF_EACH, LIMIT_S, service.said)
    with Load(service, picture, clients=6) as load:
        wait_until(lambda: replicas(service) == ONE_OF_EACH | {"Engine": 2}, LIMIT_S, load.told)
        load.await_answered(6, LIMIT_S)
    load.check()
    wait_until(lambda: replicas(service) == ONE_OF_EACH, LIMIT_S, service.said)


ONE_OF_EACH = {"Gateway": 1, "Engine": 1, "Judge": 1, "Memory": 1}


def replicas(service: RunningService) -> dict[str, int]:
    """How many there are of each deployment."""
    return {name: len(service.replicas(name)) for name in ONE_OF_EACH}


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
