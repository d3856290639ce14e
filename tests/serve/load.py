"""A bounded client: so many requests at once, each followed by the next."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import httpx
import psutil

from tests.fixtures.processes import wait_until
from tests.fixtures.service import RunningService, is_ready

PAUSE_S = 0.1
"""Before a refused client comes again; less than it is told, so that it is refused the more often."""
BACK_S = 300
"""How long a part may take to be there again, on whatever machine."""


@dataclass
class Load:
    """As long as the block lasts `clients` clients send the image. `replies` has those of each, in order."""

    service: RunningService
    image: bytes
    clients: int = 3
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

    def await_scored(self, more: int, limit_s: float) -> None:
        """Wait until so many more requests than now have been answered with a verdict."""
        wanted = self._scored() + more
        wait_until(lambda: self._scored() >= wanted, limit_s, lambda: self.told() + self.service.said())

    def told(self) -> str:
        """How many replies of which status there were, and what else came of requests."""
        statuses = sorted(reply.status_code for reply in self.all())
        counts = {status: statuses.count(status) for status in statuses}
        return f"{counts} {self.failures}"

    def check(self) -> None:
        """Every request was answered by a verdict, or told when to come again."""
        assert self.failures == []
        for reply in self.all():
            assert reply.status_code in (200, 503), (reply.status_code, reply.text)
            if reply.status_code == 200:
                assert reply.json()["status"] == "scored", reply.text
            else:
                assert int(reply.headers["Retry-After"]) > 0

    def _scored(self) -> int:
        return sum(reply.status_code == 200 for reply in self.all())

    def _send(self, mine: list[httpx.Response]) -> None:
        with self.service.client() as client:
            while not self._stop.is_set():
                try:
                    mine.append(client.post("/v1/score", files={"file": self.image}))
                except httpx.HTTPError as error:
                    self.failures.append(error)
                    return
                if mine[-1].status_code != 200:
                    self._stop.wait(PAUSE_S)


def kill_under_load(
    service: RunningService, find: Callable[[], list[psutil.Process]], image: bytes, clients: int = 3
) -> None:
    """Kill the one process that `find` finds: it is replaced, and no request is without an answer."""
    with Load(service, image, clients) as load:
        load.await_scored(clients, BACK_S)
        (victim,) = find()
        below = victim.children(recursive=True)
        victim.kill()
        wait_until(lambda: find() not in ([], [victim]), BACK_S, service.said)
        load.await_scored(clients, BACK_S)
        wait_until(lambda: is_ready(service.url), BACK_S, service.said)
    print(victim, load.told())
    load.check()
    wait_until(lambda: not any(is_there(process) for process in below), 60)


def is_there(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
