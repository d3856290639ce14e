"""What Prometheus would scrape of a run that really ran, while it runs and after it."""

import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from tests.fixtures.command import Ffaa
from tests.fixtures.ports import free_ports
from tests.fixtures.processes import die_with_parent, wait_until

SAMPLE = re.compile(r"^ray_(ffaa_batch_\w+)\{(.*)\} ([0-9.e+]+)$", re.MULTILINE)
OUR_LABEL = re.compile(r'\b(status|kind|model|exit_code|state)="(\w+)"')
DOCUMENTED = re.compile(r"^\| `ray_(ffaa_batch_\w+)` \|", re.MULTILINE)

Scrape = dict[tuple[str, str], float]
"""Values by name and our label's value, if there is one."""


def scrape(port: int) -> Scrape | None:
    """None if nobody answers."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            text = response.read().decode()
    except OSError:
        return None
    return {
        (name, label[2] if (label := OUR_LABEL.search(labels)) else ""): float(value)
        for name, labels, value in SAMPLE.findall(text)
    }


@dataclass(frozen=True)
class Cluster:
    """A Ray node of its own: the command that joins it, where it serves metrics, and its first process."""

    ffaa: Ffaa
    port: int
    first: psutil.Process

    def engine(self) -> psutil.Process | None:
        """The process of the answer stage's actor, if there is one."""
        for process in self.first.children(recursive=True):
            with suppress(psutil.Error):
                if "AnswerStage" in process.name() + " ".join(process.cmdline()):
                    return process
        return None


@pytest.fixture
def cluster(scripted: Ffaa, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    port, metrics = free_ports(2)
    folder = tmp_path_factory.mktemp("ray")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    ffaa = scripted.with_environment(**token, FFAA_TEST_FACE_S="0.5")
    head = subprocess.Popen(
        [
            *(Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--disable-usage-stats"),
            *("--include-dashboard=false", "--num-cpus=2", f"--port={port}", f"--temp-dir={folder}"),
            f"--metrics-export-port={metrics}",
        ],
        env=ffaa.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent,
    )
    try:
        there = {"RAY_ADDRESS": f"127.0.0.1:{port}"}
        yield Cluster(ffaa.with_environment(**there), metrics, psutil.Process(head.pid))
    finally:
        for process in [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait(60)


def test_a_run_tells_what_it_does_and_how_it_ended(
    make_images: Callable[[Path, int], Path], cluster: Cluster, tmp_path: Path
) -> None:
    images = make_images(tmp_path / "images", 5)
    (images / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    said = tmp_path / "said"
    line = ("score", images, tmp_path / "out", "--faces", "whole_image", "--shard-size", "2")
    wait_until(lambda: scrape(cluster.port) is not None, 200)
    run = cluster.ffaa.start(*line, said=said)
    try:
        wait_until(lambda: (tmp_path / "begun").exists() or run.poll() is not None, 200)
        assert run.poll() is None, said.read_text()
        engine = cluster.engine()
        assert engine
        engine.kill()
        wait_until(lambda: ("ffaa_batch_shards", "open") in _told(cluster), 200)
        assert run.wait(300) == 3, said.read_text()
    finally:
        run.kill()

    told = _told(cluster)
    assert told["ffaa_batch_images_total", "scored"] == told["ffaa_batch_faces_total", ""] == 5
    assert told["ffaa_batch_images_total", "decode_failed"] == 1
    assert told["ffaa_batch_tokens_total", "prompt_computed"] == 5 * 3 * 600
    assert told["ffaa_batch_tokens_total", "generated"] == 5 * 3 * 40
    assert told["ffaa_batch_restarts_total", "engine"] == 1
    assert told["ffaa_batch_ended_total", "3"] == 1
    documents = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    assert {name for name, _ in told} | {"ffaa_batch_shards"} == set(DOCUMENTED.findall(documents))


def _told(cluster: Cluster) -> Scrape:
    return scrape(cluster.port) or {}
