"""The RayService as rendered, Ray started as KubeRay does: where its parts run, what becomes of requests."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from skimage import data

from ffaa_core.bundle import Bundle
from tests.fixtures.machines import START_S, Machine, require_machines
from tests.fixtures.processes import wait_until
from tests.images import png
from tests.k8s.manifests import Rendered
from tests.k8s.ray_service import RayService

DRAINED_S = 300
PAUSE_S = 0.5


@pytest.fixture
def running(build: Callable[[str], Rendered], demo_bundle: Bundle, tmp_path: Path) -> Iterator[RayService]:
    """That of `gpu`, with room for one more gateway than it has."""
    require_machines()
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server")
    service = RayService(build("gpu"), demo_bundle, tmp_path)
    try:
        service.start(gateways=3, engines=1)
        yield service
    finally:
        service.close()


class Client:
    """Asks through one pod, again and again, and keeps how it was answered."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    @contextmanager
    def asking(self, service: RayService, pod: Machine) -> Iterator[None]:
        ended, image = threading.Event(), png(data.astronaut())

        def ask() -> None:
            while not ended.wait(PAUSE_S):
                try:
                    reply = service.score(pod, image)
                    self.answers.append(told(reply))
                except Exception as error:
                    self.answers.append(repr(error))

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def told(reply: httpx.Response) -> str:
    if reply.status_code != 200:
        return reply.text
    image = reply.json()
    return str(image["status"]) + ("" if image["image_id"] else ", not remembered")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_service_stays_when_its_head_goes_and_when_a_gateway_is_drained(running: RayService) -> None:
    gateways, engines = ([pod.address for pod in running.pods[group]] for group in ("gateway", "engine"))
    places = {part: set(running.replicas(part).values()) for part in ("Gateway", "Memory", "Engine", "Judge")}
    assert len(places["Gateway"]) == 2
    assert places["Gateway"] | places["Memory"] <= set(gateways)
    assert places["Engine"] | places["Judge"] <= set(engines)

    leaving, staying = sorted(running.pods["gateway"], key=lambda pod: pod.address not in places["Gateway"])[
        :2
    ]
    before = {part: running.replicas(part) for part in places}
    headless, client = Client(), Client()
    with headless.asking(running, staying):
        running.kill_head()
        wait_until(lambda: len(headless.answers) >= 20, START_S)
    assert set(headless.answers) == {"scored"}
    with client.asking(running, staying):
        running.start_head()
        wait_until(running.is_running, START_S, running.status)
    assert {part: running.replicas(part) for part in places} == before

    with client.asking(running, staying):
        hook = running.hook("gateway", leaving)
        code = hook.wait(DRAINED_S)
    print(f"{len(headless.answers)} verdicts without a head, {len(client.answers)} since")
    assert code == 0
    assert running.refused.exists()
    assert leaving.address not in running.replicas("Gateway").values()
    assert len(running.replicas("Gateway")) == 2
    assert set(client.answers) == {"scored"}
