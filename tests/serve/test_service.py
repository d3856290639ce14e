"""The service as its users have it: `ffaa serve`, Ray Serve, the real models of the demo bundle."""

import base64
import csv
import select
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
from skimage import data

from ffaa_core.bundle import Bundle
from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.examiner import memory_needed
from ffaa_core.mids import Judge
from ffaa_core.rows import to_row
from ffaa_core.scorer import Scorer
from ffaa_core.settings import AnswerSettings, EngineSettings, ScoringSettings, fingerprint
from ray_jobs.doctor.memory import ENGINE_BYTES, FETCH_BYTES, JUDGE_BYTES
from serve.config import ServiceSettings
from serve.gateway import EXAMINED_AT_ONCE
from serve.openai_examples import chat
from serve.replies import ScoreReply
from tests.fixtures.command import FAST
from tests.fixtures.s3 import S3Server, use
from tests.fixtures.scored import Scored, score
from tests.fixtures.service import KEY, RunningService, until
from tests.images import png

SETTINGS = ScoringSettings(answers=AnswerSettings(max_tokens=int(FAST[1])))
ASTRONAUT = png(data.astronaut())
CROWD = png(np.tile(data.astronaut(), (4, 4, 1)))
"""16 faces."""
MIB = 2**20
BOUNDS = {
    "Gateway": EXAMINED_AT_ONCE * FETCH_BYTES + memory_needed(SETTINGS) * MIB,
    "Engine": ENGINE_BYTES + int(EngineSettings().kv_cache_gib * 2**30),
    "Judge": JUDGE_BYTES,
    "Memory": FETCH_BYTES + ServiceSettings().memory_mib * MIB,
}
"""What the doctor reckons with for such processes; beside it one image, the cache, and what is remembered."""
GATEWAY_GROWS = 64 * MIB
"""Bytes that the gateway may take more when it sees images for the second time."""


@pytest.fixture(scope="module")
def client(running: RunningService) -> Iterator[httpx.Client]:
    with running.client() as client:
        yield client


def listening(process: psutil.Process) -> list[str]:
    """The addresses at which a process can be reached."""
    connections = process.net_connections()
    return [each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN]


def as_json(image: bytes) -> dict[str, str]:
    return {"image": base64.b64encode(image).decode()}


def test_all_three_ways_to_give_an_image_lead_to_the_same_verdict(
    client: httpx.Client,
    s3_uploads: str,
    moto_server: S3Server,
    demo_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ffaa_core.storage import locate

    use(moto_server, monkeypatch)
    uri = f"{s3_uploads}/2026/an astronaut.png"
    store, key = locate(uri)
    store.write(key, ASTRONAUT)
    replies = [
        client.post("/v1/score", files={"file": ASTRONAUT}),
        client.post("/v1/score", json=as_json(ASTRONAUT)),
        client.post("/v1/score", json={"uri": uri}),
    ]
    assert [reply.status_code for reply in replies] == [200] * 3, [reply.text for reply in replies]
    rows = [ScoreReply.model_validate_json(reply.content) for reply in replies]
    for row, reply in zip(rows, replies, strict=True):
        assert (row.status, row.verdict, len(row.faces)) == ("scored", rows[0].verdict, 1)
        assert row.faces[0].crop_sha256 == rows[0].faces[0].crop_sha256
        assert row.faces[0].match_score == pytest.approx(rows[0].faces[0].match_score, abs=1e-2)
        assert row.warning == demo_bundle.warning
        expected = fingerprint(SETTINGS, demo_bundle.digests)
        assert row.fingerprint == reply.headers["FFAA-Fingerprint"] == expected
    assert len({row.image_id for row in rows}) == 3


@pytest.fixture(scope="module")
def photographs(shared_faces: Path) -> list[Path]:
    return sorted((shared_faces / "forgery").glob("*/*.jpg"))[::50][:20]


@pytest.fixture(scope="module")
def undecodable(shared_faces: Path) -> list[Path]:
    """Uploads that are no images, or that are ones made to do harm."""
    with (shared_faces / "uploads" / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [row["file"] for row in rows if row["expected_faces_hog"] == "undecodable"]
    return [shared_faces / "uploads" / name for name in names]


@pytest.fixture(scope="module")
def by_batch(
    demo_bundle: Bundle,
    photographs: list[Path],
    undecodable: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[Path, dict[str, Any]]:
    """The rows that `ffaa score` makes of them, by file."""
    folder = tmp_path_factory.mktemp("batch")
    manifest = folder / "files.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([["image_uri"], *([path] for path in (*photographs, *undecodable))])
    scored = score(demo_bundle, manifest, folder / "table", "--dtype", "float32")
    return {Path(row["image_uri"]): row for row in scored.rows}


async def test_library_batch_and_service_give_the_same_verdicts(
    running: RunningService,
    engine: VllmEngine,
    demo_bundle: Bundle,
    photographs: list[Path],
    by_batch: dict[Path, dict[str, Any]],
) -> None:
    assert len(photographs) == 20
    scorer = Scorer(engine, Judge.load(demo_bundle), SETTINGS)
    by_library = [to_row(await scorer.score(path.read_bytes())) for path in photographs]
    with running.client() as client:
        replies = [client.post("/v1/score", files={"file": path.read_bytes()}) for path in photographs]
    by_service = [reply.json() for reply in replies]
    for path, library, service in zip(photographs, by_library, by_service, strict=True):
        require_same(library, service)
        require_same(library, by_batch[path])
        require_same(service, by_batch[path])
        assert service["fingerprint"] == by_batch[path]["fingerprint"]
    assert sum(len(row["faces"]) for row in by_library) >= 15


def require_same(row: dict[str, Any], other: dict[str, Any]) -> None:
    """Equal but for what two engines' arithmetic may do to a score."""
    for column in ("image_sha256", "status", "status_detail", "verdict", "n_faces_detected", "n_faces"):
        assert row[column] == other[column], column
    for face, same in zip(row["faces"], other["faces"], strict=True):
        for field in ("box", "crop_sha256", "status", "verdict", "forgery_type", "chosen"):
            assert face[field] == same[field], field
        assert abs(face["match_score"] - same["match_score"]) < 1e-2


def test_nothing_that_it_starts_listens_to_other_machines(running: RunningService) -> None:
    replicas = [running.replicas(part) for part in ("Gateway", "Engine", "Judge", "Memory")]
    assert all(len(listening(process)) == 2 for part in replicas for process in part)  # Ray's, Ray Serve's
    addresses = [address for process in running.command.processes() for address in listening(process)]
    assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}


def test_an_image_of_many_faces_goes_through_every_hop_and_back(client: httpx.Client) -> None:
    row = client.post("/v1/score", files={"file": CROWD}).raise_for_status().json()
    assert [face["status"] for face in row["faces"]] == ["scored"] * 16
    asked = chat("Why?", f"ffaa:{row['image_id']}", face=15, max_tokens=1)
    assert client.post("/v1/chat/completions", json=asked).raise_for_status().json()["ffaa"]["face"] == 15


def test_beyond_what_is_admitted_requests_are_refused_at_once(client: httpx.Client) -> None:
    with ThreadPoolExecutor(12) as senders:
        replies = list(senders.map(lambda _: client.post("/v1/score", files={"file": CROWD}), range(12)))
    statuses = [reply.status_code for reply in replies]
    assert set(statuses) == {200, 503}, statuses
    refused = [reply for reply in replies if reply.status_code == 503]
    assert len(refused) >= 4
    for reply in refused:
        assert reply.headers["Retry-After"] == "2"
        assert reply.json()["type"] == "urn:ffaa:problem:overloaded"
        assert reply.elapsed.total_seconds() < min(
            reply.elapsed.total_seconds() for reply in replies if reply.status_code == 200
        )


def test_the_work_of_a_client_that_left_is_cancelled_in_vllm(running: RunningService) -> None:
    until(lambda: running.under_way() == 0, 60)
    finished = running.ask("Engine", "figures")["requests"]
    with running.engine_held():
        connection = send_without_waiting(running, CROWD)
        until(lambda: running.under_way() == 1, 60)
        connection.close()
        until(lambda: running.under_way() == 0, 60)
    assert running.ask("Engine", "figures")["requests"] == finished
    until(lambda: {"status": 499, "statuses": []}.items() <= running.logged()[-1].items(), 10)
    assert running.computes_nothing()


def test_a_client_that_cannot_wait_is_told_so_and_its_work_is_cancelled(
    running: RunningService, client: httpx.Client
) -> None:
    until(lambda: running.under_way() == 0, 60)
    with ThreadPoolExecutor(1) as senders, running.engine_held():
        patient = senders.submit(client.post, "/v1/score", files={"file": ASTRONAUT})
        until(lambda: running.under_way() == 1, 60)
        reply = client.post("/v1/score", files={"file": CROWD}, headers={"Prefer": "wait=3"})
        until(lambda: running.under_way() == 1, 60)
        assert not patient.done()
    assert patient.result().status_code == 200
    assert reply.status_code == 503
    assert reply.json()["type"] == "urn:ffaa:problem:deadline"
    assert "Retry-After" in reply.headers
    assert running.under_way() == 0
    assert running.computes_nothing()


def test_a_body_that_says_that_it_is_too_long_is_refused_before_it_comes(running: RunningService) -> None:
    with connect(running) as connection:
        connection.sendall(head(running, f"Content-Length: {10 * 2**30}", "Content-Type: application/json"))
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_of_no_known_length_is_refused_before_it_is_whole(running: RunningService) -> None:
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    sent = 0
    with connect(running) as connection:
        connection.sendall(head(running, "Transfer-Encoding: chunked", "Content-Type: application/json"))
        while not select.select([connection], [], [], 0)[0]:
            connection.sendall(chunk)
            sent += 1
            assert sent < 4096
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    assert sent > 85  # MiB, the limit


@pytest.mark.parametrize("path", ["/v1/score", "/v1/anything"])
def test_without_a_key_nothing_of_a_request_is_looked_at(running: RunningService, path: str) -> None:
    reply = httpx.post(f"{running.url}{path}", content=b"x", headers={"Content-Type": "a/b"})
    assert reply.status_code == (401 if path == "/v1/score" else 404)
    assert "X-Request-Id" in reply.headers


def test_logs_tell_of_requests_and_nothing_of_images_and_keys(
    running: RunningService, client: httpx.Client
) -> None:
    reply = client.post("/v1/score", files={"file": ASTRONAUT}, headers={"X-Request-Id": "mine-1"})
    assert reply.headers.get_list("X-Request-Id") == ["mine-1"]
    until(lambda: any(record["id"] == "mine-1" for record in running.logged()), 10)
    (record,) = (record for record in running.logged() if record["id"] == "mine-1")
    assert (record["method"], record["path"], record["status"]) == ("POST", "/v1/score", 200)
    assert record["statuses"] == ["scored"]
    assert {"receive", "examine", "answer", "judge", "remember"} <= record["stages"].keys()
    assert sum(record["stages"].values()) <= record["seconds"] + 0.01
    description = reply.json()["faces"][0]["description"]
    for file in running.folder.rglob("*.log"):
        text = file.read_text(errors="replace")
        assert KEY not in text, file
        assert description not in text, file
        assert as_json(ASTRONAUT)["image"][:64] not in text, file


def test_files_that_are_no_images_get_the_status_that_the_batch_gives(
    client: httpx.Client, undecodable: list[Path], by_batch: dict[Path, dict[str, Any]]
) -> None:
    assert len(undecodable) > 20
    for path in undecodable:
        assert status_of(client, path) == by_batch[path]["status"], path


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_upload_gets_the_status_that_the_batch_gives_and_memory_is_bounded(
    running: RunningService, client: httpx.Client, uploads: Scored
) -> None:
    assert len(uploads.rows) > 200
    processes = {process.pid for process in running.command.processes()}
    replicas = {part: running.replicas(part) for part in BOUNDS}
    peaks = []
    for _ in range(2):
        peak = {part: taken(*of_part) for part, of_part in replicas.items()}
        for row in uploads.rows:
            assert status_of(client, Path(row["image_uri"])) == row["status"], row["image_uri"]
            peak = {part: max(peak[part], taken(*of_part)) for part, of_part in replicas.items()}
        peaks.append(peak)
        print("MiB at most:", {part: of_part // MIB for part, of_part in peak.items()})
    for part, bound in BOUNDS.items():
        assert peaks[1][part] < bound, part
    assert peaks[1]["Gateway"] - peaks[0]["Gateway"] < GATEWAY_GROWS
    assert processes <= {process.pid for process in running.command.processes()}


def taken(replica: psutil.Process) -> int:
    """Bytes of a replica's own and of the processes below it.

    Not what they share: Ray's object store has a bound of its own, its pages count as they are touched.
    """
    memory = []
    for process in (replica, *replica.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            memory.append(process.memory_info())
    return sum(each.rss - each.shared for each in memory)


def status_of(client: httpx.Client, path: Path) -> str:
    """The status in the reply's row."""
    reply = client.post("/v1/score", files={"file": path.read_bytes()})
    assert reply.status_code == 200, (path, reply.text)
    return str(ScoreReply.model_validate_json(reply.content).status)


def connect(service: RunningService) -> socket.socket:
    place = urlsplit(service.url)
    return socket.create_connection((place.hostname, place.port), timeout=60)


def head(service: RunningService, *more: str) -> bytes:
    lines = ["POST /v1/score HTTP/1.1", "Host: service", f"Authorization: Bearer {KEY}", *more, "", ""]
    return "\r\n".join(lines).encode()


def send_without_waiting(service: RunningService, image: bytes) -> socket.socket:
    """A connection on which a request was sent whose reply nobody reads."""
    request = httpx.Request("POST", service.url, files={"file": image})
    body: Any = request.read()
    connection = connect(service)
    connection.sendall(
        head(service, f"Content-Type: {request.headers['content-type']}", f"Content-Length: {len(body)}")
    )
    connection.sendall(body)
    return connection
