"""A bounded client: so many requests at once, each followed by the next."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import httpx
import psutil

from serve.deployment import Deployment
from serve.openai_examples import chat
from tests.fixtures.processes import wait_until
from tests.fixtures.service import RunningService, is_ready
from tests.serve.chatting import data_url

PAUSE_S = 0.1
"""Before a refused client comes again; less than it is told, so that it is refused the more often."""
BACK_S = 300
"""How long a part may take to be there again, on whatever machine."""
IMPATIENT_S = 10
"""What a client says who does not wait until a part is there again."""


@dataclass
class Load:
    """As long as the block lasts `clients` clients send the image. `replies` has those of each, in order.

    Each asks for an answer within `wait_s`, or leaves that to the service.
    """

    service: RunningService
    image: bytes
    clients: int = 3
    wait_s: int | None = None
    replies: list[list[httpx.Response]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._stop = threading.Event()
        self.replies += [[] for _ in range(self.clients)]
        self._threads = [threading.Thread(target=self._send, args=(mine,)) for mine in self.replies]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def all(self) -> list[httpx.Response]:
        """Every reply."""
        return [reply for mine in self.replies for reply in mine]

    def await_answered(self, more: int, limit_s: float) -> None:
        """Wait until so many more requests than now have been answered by the models."""
        wanted = self._answered() + more
        wait_until(lambda: self._answered() >= wanted, limit_s, lambda: self.told() + self.service.said())

    def told(self) -> str:
        """How many replies of which status there were, the slowest, and what else came of requests."""
        statuses = sorted(reply.status_code for reply in self.all())
        counts = {status: statuses.count(status) for status in statuses}
        slowest = max((seconds(reply) for reply in self.all()), default=0)
        return f"{counts}, after {slowest:.1f} s at most {self.failures}"

    def check(self) -> None:
        """Every request was answered in time, by a verdict or by when to come again."""
        assert self.failures == []
        deadline_s = self.wait_s or deadline_of(self.service.folder / "serve.yaml")
        for reply in self.all():
            assert seconds(reply) <= 1.1 * deadline_s, (seconds(reply), reply.status_code, reply.text)
            assert reply.status_code in (200, 503), (reply.status_code, reply.text)
            if reply.status_code == 200:
                assert reply.json()["status"] == "scored", reply.text
            else:
                assert int(reply.headers["Retry-After"]) > 0

    def _answered(self) -> int:
        return sum(reply.status_code == 200 for reply in self.all())

    def _ask(self, client: httpx.Client) -> httpx.Response:
        return client.post("/v1/score", files={"file": self.image})

    def _send(self, mine: list[httpx.Response]) -> None:
        with self.service.client() as client:
            if self.wait_s:
                client.headers["Prefer"] = f"wait={self.wait_s}"
            while not self._stop.is_set():
                try:
                    mine.append(self._ask(client))
                except httpx.HTTPError as error:
                    self.failures.append(error)
                    return
                if mine[-1].status_code != 200:
                    self._stop.wait(PAUSE_S)


class Conversations(Load):
    """The same of conversations about the image, each streamed to its end."""

    def _ask(self, client: httpx.Client) -> httpx.Response:
        body = chat("Is it real or fake?", data_url(self.image), stream=True)
        return client.post("/v1/chat/completions", json=body)


def kill_under_load(
    service: RunningService, find: Callable[[], list[psutil.Process]], image: bytes, *, impatient: bool
) -> None:
    """Kill the one process that `find` finds: it is replaced, and every request has its answer in time.

    Args: impatient: whether there is also a client that waits for IMPATIENT_S only. As long as there is no
        gateway nobody counts its seconds.
    """
    loads = [Load(service, image)] + [Load(service, image, clients=1, wait_s=IMPATIENT_S)] * impatient
    with ExitStack() as stack:
        for each in loads:
            stack.enter_context(each)
        load = loads[0]
        load.await_answered(load.clients, BACK_S)
        (victim,) = find()
        below = victim.children(recursive=True)
        victim.kill()
        wait_until(lambda: find() not in ([], [victim]), BACK_S, service.said)
        load.await_answered(load.clients, BACK_S)
        wait_until(lambda: is_ready(service.url), BACK_S, service.said)
    print(victim, *(each.told() for each in loads))
    for each in loads:
        each.check()
    wait_until(lambda: not any(is_there(process) for process in below), 60)


def seconds(reply: httpx.Response) -> float:
    """From the beginning of a request to the end of its reply."""
    return reply.elapsed.total_seconds()


def deadline_of(configuration: Path) -> float:
    """How long a service of this configuration may take for a request, in seconds."""
    return Deployment.read(configuration, {}, {}).config.service.deadline_seconds


def is_there(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
