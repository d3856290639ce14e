"""What bounds a request: its size, how many there are, and its deadline. The models are stand-ins."""

import asyncio
import base64
import gc
import sys
import threading
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from ray.serve.exceptions import BackPressureError

from serve import dialogue, uploads
from serve.body import decoded
from tests.serve.asking import JSON, MakeService, problem, score, until
from tests.serve.chatting import PATH, data_url
from tests.serve.stand_ins import Service


async def test_an_image_over_the_limit_is_refused_however_it_comes(make_service: MakeService) -> None:
    service = make_service(decode={"max_bytes": 1000})
    encoded = base64.b64encode(b"x" * 1001).decode()
    for reply in (
        await score(service, b"x" * 1001),
        await service.client.post("/v1/score", json={"image": encoded}),
    ):
        assert (reply.status_code, problem(reply)) == (413, "too-large")
    assert (await score(service, b"x" * 1000)).status_code == 200


async def test_a_long_body_is_not_read_to_its_end(make_service: MakeService) -> None:
    service = make_service(decode={"max_bytes": 1000})
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 10_000

    reply = await service.client.post("/v1/score", content=body(), headers=JSON)
    assert (reply.status_code, problem(reply)) == (413, "too-large")
    assert sent < 10


async def test_beyond_the_bound_requests_are_refused_at_once(
    make_service: MakeService, picture: bytes
) -> None:
    service = make_service(max_requests=2, retry_after_seconds=7)
    gate = service.hops.engine.gate = asyncio.Event()
    waiting = [asyncio.ensure_future(score(service, picture)) for _ in range(2)]
    await until(lambda: service.hops.engine.begun == 6)
    refused = await score(service, picture)
    assert (refused.status_code, problem(refused)) == (503, "overloaded")
    assert refused.headers["Retry-After"] == "7"
    assert (await service.client.get("/healthz")).status_code == 200
    gate.set()
    assert [(await reply).status_code for reply in waiting] == [200, 200]
    assert (await score(service, picture)).status_code == 200


LARGE = 600_000
"""Bytes of which three fit into 2 MiB; twice in base64 and decoded they do not."""


async def test_room_for_the_largest_image_is_held_before_an_address_is_read(
    make_service: MakeService, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(decode={"max_bytes": LARGE}, max_body_mib=2, deadline_seconds=20)
    gate, begun = asyncio.Event(), 0

    async def read(uri: str) -> bytes:
        nonlocal begun
        begun += 1
        await gate.wait()
        return picture

    monkeypatch.setattr(service.gateway.uploads._sources, "read", read)
    ask = partial(service.client.post, "/v1/score", json={"uri": "s3://photos/uploads/a.png"})
    waiting = [asyncio.ensure_future(ask()) for _ in range(3)]
    await until(lambda: begun == 3)
    refused = await ask()
    assert (refused.status_code, problem(refused), begun) == (503, "overloaded", 3)
    gate.set()
    assert [(await reply).status_code for reply in waiting] == [200] * 3
    gate.clear()
    engine = service.hops.engine.gate = asyncio.Event()
    before = service.hops.engine.begun
    waiting = [asyncio.ensure_future(ask()) for _ in range(2)]
    gate.set()
    await until(lambda: service.hops.engine.begun == before + 6)
    more = [asyncio.ensure_future(ask()) for _ in range(2)]  # what was too much is given back
    await until(lambda: service.hops.engine.begun == before + 12)
    engine.set()
    assert [(await reply).status_code for reply in waiting + more] == [200] * 4


@pytest.mark.parametrize("path", ["/v1/score", PATH])
async def test_what_base64_decodes_to_is_held_before_it_is_decoded(
    make_service: MakeService, picture: bytes, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding = list[str]()

    def decode(text: str) -> bytes:
        decoding.append(text)
        return decoded(text)

    for user in (uploads, dialogue):
        monkeypatch.setattr(user, "decoded", decode)
    service = make_service(decode={"max_bytes": LARGE}, max_body_mib=2, deadline_seconds=20)
    gate = service.hops.engine.gate = asyncio.Event()
    url = data_url(picture.ljust(LARGE * 5 // 6, b"\0"))
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Why?"}]
    asked = {
        "/v1/score": {"image": url.partition(",")[2]},
        PATH: {"model": "ffaa", "messages": [{"role": "user", "content": content}]},
    }
    waiting = asyncio.ensure_future(service.client.post(path, json=asked[path]))
    await until(lambda: service.hops.engine.begun == 3)
    refused = await service.client.post(path, json=asked[path])
    assert (refused.status_code, "memory" in refused.text, len(decoding)) == (503, True, 1)
    gate.set()
    assert (await waiting).status_code == 200


async def test_at_the_deadline_the_work_is_cancelled(make_service: MakeService, picture: bytes) -> None:
    service = make_service(deadline_seconds=2)
    service.hops.engine.gate = asyncio.Event()
    reply = await score(service, picture)
    assert (reply.status_code, problem(reply)) == (503, "deadline")
    assert reply.headers["Retry-After"] == "2"
    await until(lambda: service.hops.engine.cancelled == service.hops.engine.begun > 0)
    assert service.gateway.admission.under_way == 0


async def test_a_client_may_ask_for_less_time(service: Service, picture: bytes) -> None:
    service.hops.engine.gate = asyncio.Event()
    reply = await score(service, picture, headers={"Prefer": "wait=1"})
    assert (reply.status_code, problem(reply)) == (503, "deadline")


async def test_a_body_that_comes_too_slowly_is_given_up(make_service: MakeService) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    reply = await make_service(deadline_seconds=0.1).client.post("/v1/score", content=body(), headers=JSON)
    assert (reply.status_code, problem(reply)) == (408, "timeout")


async def test_storage_that_is_too_slow_is_not_the_clients_fault(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(deadline_seconds=0.1)

    async def read(uri: str) -> bytes:
        await asyncio.Event().wait()
        return b""

    monkeypatch.setattr(service.gateway.uploads._sources, "read", read)
    reply = await service.client.post("/v1/score", json={"uri": "s3://photos/uploads/a.png"})
    assert (reply.status_code, problem(reply)) == (503, "deadline")


async def test_of_a_request_that_has_ended_nothing_waits_to_be_decoded(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, gate = threading.Semaphore(0), threading.Event()

    def examine(data: bytes) -> None:
        at_work.release()
        gate.wait()

    monkeypatch.setattr(service.gateway._examiner, "examine", examine)
    workers = service.gateway._examining._max_workers
    busy = [asyncio.ensure_future(service.gateway._examine(b"")) for _ in range(workers)]
    try:
        await asyncio.to_thread(lambda: [at_work.acquire() for _ in busy])
        data = bytes(1000)
        before = sys.getrefcount(data)
        waits = asyncio.ensure_future(service.gateway._examine(data))
        await asyncio.sleep(0)
        assert sys.getrefcount(data) > before
        waits.cancel()
        await asyncio.wait([waits])
        del waits
        gc.collect()
        assert sys.getrefcount(data) == before
    finally:
        gate.set()
    await asyncio.gather(*busy)


async def test_a_client_that_leaves_cancels_the_work(
    service: Service, picture: bytes, records: list[dict[str, Any]]
) -> None:
    service.hops.engine.gate = asyncio.Event()
    request = asyncio.ensure_future(score(service, picture))
    await until(lambda: service.hops.engine.begun > 0)
    request.cancel()
    await until(lambda: service.hops.engine.cancelled == service.hops.engine.begun)
    await until(lambda: records)
    assert records[0]["status"] == 499
    assert service.gateway.admission.under_way == 0


async def test_a_full_hop_is_told_as_an_overload(service: Service, picture: bytes) -> None:
    service.hops.fail_with = [BackPressureError(9, 9)]
    reply = await score(service, picture)
    assert (reply.status_code, problem(reply)) == (503, "overloaded")
