"""`make rehearse-nightly`: three nights with nodes that are lost, new images, and images that fail."""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from PIL import Image, ImageEnhance
from skimage import data

from ffaa_core.bundle import Bundle
from ffaa_core.table import VerdictTable
from tests.fixtures.command import Ffaa
from tests.fixtures.machines import Network, require_machines
from tests.fixtures.processes import wait_until
from tests.fixtures.proxy import Proxy, running
from tests.fixtures.s3 import S3Server, use
from tests.k8s.kuberay import RayCluster
from tests.k8s.manifests import Rendered
from tests.k8s.pods import OF_THE_IMAGE
from tests.k8s.rehearsal import Rehearsal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

OVERLAY = "cpu-dev"
N_SHARDS, SHARD_SIZE = 20, 2
N_NEW, N_DAMAGED = 5, 3
SIZES = {"run": {"shard_size": SHARD_SIZE}}
MONDAY = 29_400_000
"""When the first night is scheduled, in minutes since 1970."""
A_DAY = 24 * 60
GRACE_S = 660
"""How long the shards in flight may take: more than `run.grace_seconds`, after which they are given up."""
SOON_S = 60


class Uploads:
    """The bucket that is INPUT."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3, self._bucket = s3, bucket

    def add(self, name: str, content: bytes) -> str:
        """A new image; its address."""
        self._s3.put_object(Bucket=self._bucket, Key=name, Body=content)
        return f"s3://{self._bucket}/{name}"

    def add_portraits(self, first: int, count: int) -> set[str]:
        """The same face, more or less bright."""
        portrait = Image.fromarray(data.astronaut()).crop((60, 0, 400, 340))
        added = set()
        for number in range(first, first + count):
            file = io.BytesIO()
            ImageEnhance.Brightness(portrait).enhance(0.7 + number / 100).save(file, "PNG")
            added.add(self.add(f"portrait {number:03}.png", file.getvalue()))
        return added


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A network that this machine is in, with a bridge of its own, so that any other machine may end."""
    require_machines()
    made = Network(f"10.77.{os.getpid() % 256}")
    try:
        made.add(["sleep", "infinity"], OF_THE_IMAGE, tmp_path / "bridge")
        made.join_this_machine()
        yield made
    finally:
        made.close()


@pytest.fixture
def storage(network: Network, ceph_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Ceph RGW where the network reaches it."""
    with running(Proxy(ceph_server, host=network.this_machine)) as proxy:
        use(proxy.server, monkeypatch)
        yield proxy.server


def rows_of(output: str, run: int) -> Counter[tuple[str, str]]:
    """How many rows of a run there are by image and status."""
    columns = ["run", "image_uri", "status"]
    found = [row for batch in VerdictTable.open(output).rows(columns=columns) for row in batch.to_pylist()]
    return Counter((row["image_uri"], row["status"]) for row in found if row["run"] == run)


def test_three_nights(
    build: Callable[[str], Rendered],
    network: Network,
    storage: S3Server,
    demo_bundle: Bundle,
    ffaa: Ffaa,
    tmp_path: Path,
) -> None:
    s3 = boto3.client("s3")
    bucket, models = storage.fresh_bucket(), storage.fresh_bucket()
    for file in demo_bundle.path.rglob("*"):
        if file.is_file():
            s3.upload_file(str(file), models, f"demo/{file.relative_to(demo_bundle.path)}")
    output = f"s3://{storage.fresh_bucket()}/nightly"
    values = {
        "FFAA_INPUT": f"s3://{bucket}/",
        "FFAA_OUTPUT": output,
        "FFAA_BUNDLE": f"s3://{models}/demo",
        "FFAA_BUNDLE_SHA256": hashlib.sha256((demo_bundle.path / "bundle.json").read_bytes()).hexdigest(),
    }
    rehearsal = Rehearsal(build(OVERLAY), network, storage, tmp_path, values=values, settings=SIZES)
    uploads = Uploads(s3, bucket)
    tell = rehearsal.tell

    def assert_run(run: int, status: str, images: set[str]) -> None:
        assert rows_of(output, run) == {(image, status): 1 for image in images}
        verified = ffaa.with_environment(**storage.environment())("table", "verify", output)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        tell(f"run {run}: exactly its {len(images)} images have a row each, all {status}; the table is whole")

    def a_node_dies_and_the_head_is_drained(cluster: RayCluster) -> None:
        rehearsal.await_commits(2, cluster)
        lost = cluster.holding("AnswerStage")
        assert lost
        done = rehearsal.n_committed()
        tell(f"{done} of {N_SHARDS} shards are committed: the {lost} node, which holds the engine, dies")
        cluster.pods[lost].machine.kill()
        cluster.add(lost)
        before = rehearsal.n_committed()
        tell(f"another {lost} node has joined; {before} shards are committed")
        rehearsal.await_commits(before + 1, cluster)
        with cluster.suspended("AnswerStage"):  # else a quick machine is done before the signal comes
            before = rehearsal.n_committed()
            tell(f"the job goes on: {before} shards are committed. Now the head's node is drained")
            cluster.head.start_ending()
            wait_until(lambda: "SIGTERM: no new shards" in cluster.driver_log, SOON_S)
        wait_until(lambda: "stopped by SIGTERM; the same command goes on" in cluster.driver_log, GRACE_S)
        tell(f"the shards in flight are done: {rehearsal.n_committed()} are committed")
        assert cluster.head.await_hook(SOON_S) == 0
        assert cluster.status()["jobStatus"] == "STOPPED"
        tell("the head's preStop hook is done, and the job has stopped")
        assert "not finished in time" not in cluster.driver_log
        assert before < rehearsal.n_committed() < N_SHARDS

    def the_head_dies(cluster: RayCluster) -> None:
        wait_until(lambda: cluster.holding("AnswerStage"), GRACE_S, lambda: cluster.driver_log)
        done = rehearsal.n_committed()
        assert done < N_SHARDS
        tell(f"{done} of {N_SHARDS} shards are committed, and the engine loads: the head dies")
        cluster.head.machine.kill()

    tell(f"Monday: {N_SHARDS * SHARD_SIZE} images")
    first = uploads.add_portraits(0, N_SHARDS * SHARD_SIZE)
    assert rehearsal.night(MONDAY, a_node_dies_and_the_head_is_drained, the_head_dies) == [75, 75, 0]
    assert_run(1, "scored", first)

    tell(f"Tuesday: {N_NEW} new images")
    new = uploads.add_portraits(len(first), N_NEW)
    assert rehearsal.night(MONDAY + A_DAY) == [0]
    assert_run(2, "scored", new)

    tell(f"Wednesday: {N_DAMAGED} new images, all damaged")
    damaged = {uploads.add(f"damaged {n}.jpg", b"\xff\xd8\xff\xe0 no more") for n in range(N_DAMAGED)}
    assert rehearsal.night(MONDAY + 2 * A_DAY) == [3]
    assert_run(3, "decode_failed", damaged)
    assert_run(1, "scored", first)

    assert len(rehearsal.api.created) == 5
    tell("all nights ended as they should")
