"""One JSON line for every request, in Ray Serve's log. Never what an image shows, a key, or an address."""

import logging
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger("ray.serve")

CLIENT_LEFT = 499
"""Logged as the status of a request whose client did not wait for the reply."""

LONGEST_PATH = 200
"""Characters of a path that are logged."""

ELSEWHERE = "other"
"""The route of every path that there is not."""

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(kw_only=True)
class RequestRecord:
    """What is logged of a request. `statuses` are those of its images, `client` the beginning of its key's
    digest, `stages` the seconds it spent in each, `problem` the kind of the error it ended in. `route` is the
    path as the service knows it, of which there are few.
    """

    id: str
    method: str
    path: str
    route: str = ELSEWHERE
    status: int | None = None
    problem: str | None = None
    client: str | None = None
    statuses: list[str] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block to a stage."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0) + time.monotonic() - started

    @property
    def seconds(self) -> float:
        """How long ago it came."""
        return time.monotonic() - self.started

    def write(self) -> None:
        """Log the request, which has ended."""
        told: dict[str, Any] = {
            "id": self.id,
            "method": self.method,
            "path": self.path[:LONGEST_PATH],
            "status": self.status,
            "problem": self.problem,
            "client": self.client,
            "seconds": round(self.seconds, 4),
            "stages": {name: round(seconds, 4) for name, seconds in self.stages.items()},
            "statuses": self.statuses,
        }
        log.info("request", extra={"ffaa": told})


def request_id(given: str | None) -> str:
    """The id that the client gave, if it can be shown anywhere, else a new one."""
    return given if given and _SANE_ID.fullmatch(given) else str(uuid.uuid4())
