"""What Prometheus would scrape of a service that runs."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest
from skimage import data

from serve.keys import digest
from serve.logs import ELSEWHERE
from serve.metrics import WHOLE
from tests.fixtures.service import KEY, RunningService, until
from tests.images import png

DOCUMENTED = re.compile(r"^\| `ray_((?:ffaa_service|serve)_\w+)` \|", re.MULTILINE)
SAMPLE = re.compile(
    r"^ray_((?:ffaa_service|serve)_\w+?)(_bucket|_sum|_count)?\{(.*)\} ([0-9.e+]+)$", re.MULTILINE
)
LABEL = re.compile(r'(\w+)="([^"]*)"')
ASTRONAUT = png(data.astronaut())
SOON_S = 120
"""In which what happened is told: Ray does so every second here."""


class Scrape:
    """All that the service tells now."""

    def __init__(self, service: RunningService) -> None:
        (url,) = re.findall(r"metrics at (\S+)", service.said())
        with urlopen(url, timeout=60) as response:
            self.text = response.read().decode()
        samples = SAMPLE.findall(self.text)
        self.names = {name for name, *_ in samples}
        self.samples = [
            (name + suffix, dict(LABEL.findall(labels)), float(value))
            for name, suffix, labels, value in samples
        ]

    def sums(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The sums of a metric's values by these labels."""
        sums: Counter[tuple[str, ...]] = Counter()
        for each, of_each, value in self.samples:
            if each == name:
                sums[tuple(of_each[label] for label in labels)] += value  # type: ignore[assignment]
        return dict(sums)

    def total(self, name: str) -> float:
        """The sum of all of a metric's values."""
        return sum(self.sums(name).values())


@pytest.fixture(scope="module")
def busy(running: RunningService) -> RunningService:
    """The service after requests that ended in many ways."""
    with running.client() as client:
        scored = client.post("/v1/score", files={"file": ASTRONAUT}).json()
        client.post("/v1/score", files={"file": b"no image"}).raise_for_status()
        message = {"role": "user", "content": f"ffaa:{scored['image_id']} Why?"}
        talk = {"model": "ffaa", "messages": [message], "max_tokens": 4}
        client.post("/v1/chat/completions", json=talk).raise_for_status()
        for method, path in (
            ("GET", "/v1/models/another"),
            ("GET", "/v1/score"),
            ("POST", "/somewhere/else"),
        ):
            assert client.request(method, path).status_code in (404, 405)
        assert client.post("/v1/score", headers={"Authorization": "Bearer nobody's"}).status_code == 401

        def is_late() -> bool:
            reply = client.post("/v1/score", files={"file": ASTRONAUT}, headers={"Prefer": "wait=1"})
            return reply.status_code == 503

        with running.engine_held():
            until(is_late, SOON_S)
    return running


def route_of(path: str) -> str:
    """As the service knows it."""
    routes = ("/v1/score", "/v1/chat/completions", "/v1/models", "/healthz", "/readyz", "/openapi.json")
    if re.fullmatch("/v1/models/[^/]+", path):
        return "/v1/models/{model}"
    return path if path in routes else ELSEWHERE


def test_what_is_told_of_requests_is_what_is_logged(busy: RunningService) -> None:
    def same() -> bool:
        told, logged = Scrape(busy), busy.logged()
        answered = [each for each in logged if each["status"] == 200]
        return (
            told.sums("ffaa_service_requests_total", "route", "status")
            == Counter((route_of(each["path"]), str(each["status"])) for each in logged)
            and told.sums("ffaa_service_images_total", "status")
            == Counter((status,) for each in logged for status in each["statuses"])
            and told.sums("ffaa_service_unavailable_total", "reason")
            == Counter((each["problem"],) for each in logged if each["status"] == 503)
            and told.sums("ffaa_service_seconds_count", "route", "stage")
            == Counter(
                (route_of(each["path"]), stage) for each in answered for stage in (*each["stages"], WHOLE)
            )
        )

    until(same, SOON_S)
    assert Scrape(busy).sums("ffaa_service_unavailable_total", "reason")["deadline",] >= 1


def test_what_is_told_of_models_and_memory_is_what_they_say(busy: RunningService) -> None:
    def same() -> bool:
        engine, remembered = busy.ask("Engine", "figures"), busy.ask("Memory", "size")[0]
        told = Scrape(busy)
        tokens = told.sums("ffaa_service_tokens_total", "kind")
        return (
            tokens.get(("prompt_cached",)) == engine["cached_tokens"]
            and tokens.get(("prompt_computed",)) == engine["prompt_tokens"] - engine["cached_tokens"]
            and tokens.get(("generated",)) == engine["generated_tokens"]
            and told.total("ffaa_service_remembered_images") == remembered
            and told.total("ffaa_service_engine_images") == told.total("ffaa_service_admitted_requests") == 0
            and told.sums("ffaa_service_starts_total", "part")
            == {(part,): 1 for part in ("gateway", "engine", "judge", "memory")}
            and told.total("ffaa_service_ready") == 1
        )

    until(same, SOON_S)


def test_gauges_show_what_is_under_way(busy: RunningService) -> None:
    with busy.client() as client, ThreadPoolExecutor(1) as senders:
        with busy.engine_held():
            sent = senders.submit(client.post, "/v1/score", files={"file": ASTRONAUT})
            until(lambda: Scrape(busy).total("ffaa_service_engine_images") == 1, SOON_S)
            until(lambda: Scrape(busy).total("ffaa_service_admitted_requests") == 1, SOON_S)
        assert sent.result().status_code == 200


def test_metrics_are_those_documented_and_tell_nothing_of_images_keys_and_paths(busy: RunningService) -> None:
    documents = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    documented = set(DOCUMENTED.findall(documents))
    ours = {name for name in documented if name.startswith("ffaa")}

    def all_told() -> bool:
        names = Scrape(busy).names
        return documented <= names and {name for name in names if name.startswith("ffaa")} == ours

    until(all_told, SOON_S)
    told = Scrape(busy)
    for secret in (KEY, digest(KEY)[:12], "somewhere", "another"):
        assert secret not in "\n".join(line for line in told.text.splitlines() if "ffaa_service" in line)
