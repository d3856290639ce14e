"""What is answered is what the OpenAPI says: schemathesis makes requests of it, good ones and bad ones."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from skimage import data

from serve.api import create_api
from tests.fixtures import service as real
from tests.fixtures.service import RunningService, until
from tests.images import png
from tests.serve.stand_ins import KEY, Service

SEED = 20261120
CONTRACT = Path(__file__).with_name("contract")
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
SCORE, CHAT = "POST /v1/score", "POST /v1/chat/completions"

Replies = Counter[tuple[str, int, str]]
"""Numbers of replies by method and path, status, and media type."""


def test_every_reply_is_documented(service: Service, tmp_path: Path) -> None:
    with served(service) as url:
        replies = contract_kept(url, KEY, tmp_path)
    assert replies.total() >= 500


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_reply_of_the_real_service_is_documented(running: RunningService, tmp_path: Path) -> None:
    processes = {process.pid for process in running.command.processes()}
    replies = contract_kept(running.url, real.KEY, tmp_path)
    assert replies.total() >= 500
    assert processes <= {process.pid for process in running.command.processes()}
    print(*sorted(replies.items()), sep="\n")


def contract_kept(url: str, key: str, folder: Path) -> Replies:
    """The replies of a service to what schemathesis asked it, none of which was other than documented."""
    (folder / "image").write_text(picture())
    command: list[Any] = [SCHEMATHESIS, "--config-file", CONTRACT / "schemathesis.toml", "run"]
    options = ["--header", f"Authorization: Bearer {key}", "--seed", SEED]
    done = subprocess.run(
        [str(word) for word in (*command, f"{url}/openapi.json", *options)],
        cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": str(CONTRACT / "hooks.py")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    replies = Counter(tuple(json.loads(line)) for line in (folder / "replies").read_text().splitlines())
    assert not {status for _, status, _ in replies if status >= 500} - {503}
    succeeded = {(path, kind) for path, status, kind in replies if status == 200}
    assert {(SCORE, "application/json"), (CHAT, "application/json"), (CHAT, "text/event-stream")} <= succeeded
    return replies


def picture() -> str:
    """A data URL of an image with a face."""
    return f"data:image/png;base64,{base64.b64encode(png(data.astronaut()[:256, 128:384])).decode()}"


@contextmanager
def served(service: Service) -> Iterator[str]:
    """Have it, warmed up, answer HTTP in a thread of this process."""
    asyncio.run(service.gateway.warm_up())
    api = create_api(service.gateway)
    server = uvicorn.Server(uvicorn.Config(api, port=0, lifespan="off", log_level="warning"))
    thread = threading.Thread(target=asyncio.run, args=[server.serve()])
    thread.start()
    try:
        until(lambda: server.started, 60)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
