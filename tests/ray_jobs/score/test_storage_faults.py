"""The whole job on object storage that fails, stalls, refuses or falls silent: complete, nothing twice."""

import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ffaa_core.storage import Store, open_store
from ffaa_core.storage.patience import TIMEOUT
from ffaa_core.table import VerdictTable
from tests.ffaa_core.table.shards import rows_of
from tests.fixtures.command import Ffaa
from tests.fixtures.processes import wait_until
from tests.fixtures.proxy import Answer, Fault, Proxy, Request, running
from tests.fixtures.s3 import S3Server, use

SEED = int(os.environ.get("FFAA_TEST_SEED", "1"))
WAITING = "waiting for storage: "


@dataclass
class Bucket:
    """A bucket of images on Ceph, as this process sees it: past every proxy."""

    uri: str
    names: list[str]
    said: Path
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.store = open_store(self.uri)

    @property
    def input(self) -> str:
        return f"{self.uri}/in/"

    @property
    def output(self) -> str:
        return f"{self.uri}/out"

    def table(self) -> VerdictTable:
        return VerdictTable.open(self.output)

    def files(self, kind: str) -> list[str]:
        """What lies in a folder of the one run."""
        return [info.key for info in self.store.list(f"out/runs/1/{kind}/")]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Every row there is, by its image's name; no image has two."""
        rows = [row for batch in self.table().rows(latest=False) for row in batch.to_pylist()]
        by_name = {row["image_uri"].removeprefix(self.input): row for row in rows}
        assert len(by_name) == len(rows)
        return by_name

    def assert_complete(self, ffaa: Ffaa, n_shards: int) -> None:
        """Every image is scored and has one row, every shard one commit and one file."""
        verified = ffaa("table", "verify", self.output)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        rows = self.rows()
        assert sorted(rows) == self.names
        assert {row["status"] for row in rows.values()} == {"scored"}
        assert len(self.files("commits")) == len(self.files("verdicts")) == n_shards
        assert "done twice" not in self.said.read_text()


@pytest.fixture
def fill(
    ceph_server: S3Server, make_images: Callable[[Path, int], Path], tmp_path: Path, monkeypatch: Any
) -> Callable[[int], Bucket]:
    """Makes a bucket of so many images."""

    def fill(n: int) -> Bucket:
        use(ceph_server, monkeypatch)
        bucket = Bucket(f"s3://{ceph_server.fresh_bucket()}", [], tmp_path / "said")
        for path in sorted(make_images(tmp_path / "images", n).iterdir()):
            bucket.store.write(f"in/{path.name}", path)
            bucket.names.append(path.name)
        return bucket

    return fill


def through(proxy: Proxy, scripted: Ffaa, **environment: str) -> Ffaa:
    return scripted.with_environment(**proxy.server.environment(), **environment)


def wait_while_it_runs(
    condition: Callable[[], object], driver: subprocess.Popen[bytes], bucket: Bucket
) -> float:
    """Wait until it holds, which must be before the command ends; returns the seconds."""

    def holds() -> object:
        assert driver.poll() is None, bucket.said.read_text()
        return condition()

    return wait_until(holds, 300, bucket.said.read_text)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Commands that end with the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for driver in started:
        driver.kill()
        driver.wait()


def test_requests_that_fail_or_stall_and_short_outages_cost_nothing_but_time(
    scripted: Ffaa, ceph_server: S3Server, fill: Callable[[int], Bucket], started: list[Any]
) -> None:
    bucket = fill(32)
    with running(Proxy(ceph_server, share=0.15, seed=SEED, stall_s=2.5)) as proxy:
        ffaa = through(proxy, scripted, **{TIMEOUT: "1", "FFAA_TEST_FACE_S": "0.5"})
        command = ("score", bucket.input, bucket.output, "--faces", "whole_image", "--shard-size", "4")
        driver = ffaa.start(*command, said=bucket.said)
        started.append(driver)
        wait_while_it_runs(lambda: bucket.files("commits"), driver, bucket)
        for outage in (proxy.refuse, proxy.black_hole):
            outage()
            time.sleep(1.5)
            before = len(bucket.files("commits"))
            proxy.restore()
            wait_while_it_runs(lambda before=before: len(bucket.files("commits")) > before, driver, bucket)
        assert driver.wait(120) == 0, bucket.said.read_text()
    assert proxy.faults.total() >= 8
    assert len(proxy.faults) >= 3
    bucket.assert_complete(scripted.with_environment(**ceph_server.environment()), n_shards=8)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("outage", [Proxy.refuse, Proxy.black_hole])
def test_a_minute_without_storage_on_top_of_five_failing_requests_in_a_hundred(
    scripted: Ffaa,
    ceph_server: S3Server,
    fill: Callable[[int], Bucket],
    started: list[Any],
    outage: Callable[[Proxy], None],
) -> None:
    bucket = fill(320)
    begun = time.monotonic()
    with running(Proxy(ceph_server, share=0.05, seed=SEED)) as proxy:
        ffaa = through(proxy, scripted, FFAA_TEST_FACE_S="2")
        command = ("score", bucket.input, bucket.output, "--faces", "whole_image", "--shard-size", "8")
        driver = ffaa.start(*command, said=bucket.said)
        started.append(driver)
        wait_while_it_runs(lambda: len(bucket.files("commits")) >= 8, driver, bucket)
        outage(proxy)
        time.sleep(60)
        before = len(bucket.files("commits"))
        proxy.restore()
        resumed_s = wait_while_it_runs(lambda: len(bucket.files("commits")) > before, driver, bucket)
        assert driver.wait(400) == 0, bucket.said.read_text()
    total_s = time.monotonic() - begun
    assert before < 40
    said = bucket.said.read_text()
    faults = {str(fault): n for fault, n in proxy.faults.items()}
    print(f"seed {SEED}, {outage.__name__}: {total_s:.0f} s, {proxy.n_requests} requests")
    print(f"{proxy.faults.total()} spoiled: {faults}; first commit {resumed_s:.1f} s after the outage")
    assert proxy.faults.total() >= 20
    bucket.assert_complete(scripted.with_environment(**ceph_server.environment()), n_shards=40)
    assert 1 <= said.count(WAITING) <= 1 + total_s // 60, said
    assert resumed_s < 30


class Refusals:
    """What storage says to certain requests, each in a way of its own."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._seen: Counter[str] = Counter()

    def __call__(self, request: Request) -> Answer | Fault | None:
        name = f"{request.method} {request.path.rpartition('/')[2]}"
        self._seen[name] += 1
        first = self._seen[name] == 1
        if name == "GET 0003.png":
            return Answer(403, "AccessDenied")
        if name == "GET 0007.png":
            return Answer(404, "NoSuchKey")
        if re.match(r"GET 001\d.png", name) and first:
            return Answer(503, "SlowDown")
        if name == "PUT 000001.json" and self._seen[name] <= 2:
            return Answer(409, "ConditionalRequestConflict")
        if name == "PUT 000002.json" and first:
            self._commit_as_another(2)
        if name == "PUT 000003.json" and first:
            return Fault.LOST_ANSWER
        return None

    def _commit_as_another(self, shard: int) -> None:
        (run,) = self._bucket.table().runs()
        run.commit(shard, rows_of(run, shard), writer="another", engine={})


@pytest.mark.slow
def test_each_refusal_comes_to_what_the_runbook_says_in_one_run(
    scripted: Ffaa, ceph_server: S3Server, fill: Callable[[int], Bucket]
) -> None:
    bucket = fill(40)
    with running(Proxy(ceph_server, answer=Refusals(bucket))) as proxy:
        ffaa = through(proxy, scripted)
        done = ffaa("score", bucket.input, bucket.output, "--faces", "whole_image", "--shard-size", "8")
    assert done.returncode == 0, done.stderr  # 2 of 40 are not more than 5 %
    rows = bucket.rows()
    assert sorted(rows) == bucket.names
    failed = {name: row for name, row in rows.items() if row["status"] != "scored"}
    assert {name: row["status"] for name, row in failed.items()} == {
        "0003.png": "fetch_failed",
        "0007.png": "gone",
    }
    assert "the credentials do not allow it" in failed["0003.png"]["status_detail"]
    (run,) = bucket.table().runs()
    by_another = {commit.shard for commit in run.commits() if commit.writer == "another"}
    assert by_another == {2}
    assert "1 shards were committed already" in done.stderr
    assert len(bucket.files("commits")) == 5
    direct = scripted.with_environment(**ceph_server.environment())
    assert "1 file," in direct("table", "gc", bucket.output).stdout
    assert len(bucket.files("verdicts")) == 5
    assert direct("table", "verify", bucket.output).returncode == 0


REFUSALS = {
    (r"GET /[^/]+\?list-type=2.*in", Answer(403, "AccessDenied")): "cannot list s3://.*do not allow it",
    (r"PUT .*/ffaa-table.json", Answer(403, "AccessDenied")): "cannot create s3://.*do not allow it",
    (r"GET /[^/]+\?list-type=2", Answer(404, "NoSuchBucket")): "the bucket does not exist",
}


def test_a_refusal_that_no_waiting_helps_ends_the_command_at_once(
    scripted: Ffaa, ceph_server: S3Server, fill: Callable[[int], Bucket], started: list[Any], tmp_path: Path
) -> None:
    bucket = fill(1)
    with ExitStack() as proxies:
        for number, (pattern, said) in enumerate(REFUSALS):
            proxy = proxies.enter_context(running(Proxy(ceph_server, answer=refusing(pattern, said))))
            command = through(proxy, scripted)
            started.append(command.start("score", bucket.input, bucket.output, said=tmp_path / str(number)))
        assert [driver.wait(60) for driver in started] == [2, 2, 2]
    for number, told in enumerate(REFUSALS.values()):
        (line,) = (tmp_path / str(number)).read_text().splitlines()
        assert re.match(f"ffaa: .*{told}", line)


def refusing(pattern: str, said: Answer) -> Callable[[Request], Answer | None]:
    return lambda request: said if re.match(pattern, f"{request.method} {request.path}") else None


def test_storage_that_does_not_answer_is_told_within_seconds_and_waited_for(
    scripted: Ffaa, ceph_server: S3Server, tmp_path: Path, started: list[Any]
) -> None:
    said = {outage: tmp_path / outage for outage in ("refuse", "black_hole")}
    with running(Proxy(ceph_server)) as refusing, running(Proxy(ceph_server)) as silent:
        refusing.refuse()
        silent.black_hole()
        for proxy, file in zip((refusing, silent), said.values(), strict=True):
            started.append(through(proxy, scripted).start("score", "s3://no/in", "s3://no/out", said=file))
        wait_until(lambda: all(WAITING in file.read_text() for file in said.values()), 60)
        for driver in started:
            assert driver.poll() is None
            driver.terminate()
        assert [driver.wait(30) for driver in started] == [75, 75]
    for file in said.values():
        waiting, stopped = file.read_text().splitlines()
        assert waiting.startswith(f"ffaa: {WAITING}cannot list s3://no/in/")
        left = re.search(r"; it is tried again for (\d+) s$", waiting)
        assert left
        assert 100 <= int(left[1]) <= 115
        assert stopped.startswith("ffaa: stopped by SIGTERM")


@pytest.mark.slow
def test_a_manifest_that_names_what_is_not_there_ends_in_3_and_says_so(
    scripted: Ffaa, make_images: Callable[[Path, int], Path], tmp_path: Path
) -> None:
    manifest = tmp_path / "list.csv"
    image = next(make_images(tmp_path / "in", 1).iterdir())
    manifest.write_text(f"image_uri\n{image}\n" + "".join(f"{tmp_path}/mistyped/{i}.png\n" for i in range(4)))
    done = scripted("score", manifest, tmp_path / "out", "--faces", "whole_image")
    assert done.returncode == 3, done.stderr
    assert "4 of 5 images are not where INPUT says" in done.stdout
