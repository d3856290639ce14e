"""Requests and replies of the gateway, its models being stand-ins."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from serve.envelope import SECURITY_HEADERS
from serve.replies import Detail, ScoreReply
from tests.images import png
from tests.serve.stand_ins import FINGERPRINT, KEY, OTHER_KEY, Gone, Handle, Service, Silent

MakeService = Callable[..., Service]


@pytest.fixture(scope="module")
def other_pictures() -> tuple[bytes, bytes]:
    return png(np.zeros((40, 40, 3), np.uint8)), png(np.ones((40, 40, 3), np.uint8))


def problem(reply: httpx.Response) -> str:
    """The type of the problem that a reply tells, which must be as RFC 9457 has it."""
    details = reply.json()
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert details["status"] == reply.status_code
    assert details["title"]
    assert details["detail"]
    assert details["request_id"] == reply.headers["X-Request-Id"]
    return str(details["type"]).removeprefix("urn:ffaa:problem:")


async def score(service: Service, image: bytes, **options: Any) -> httpx.Response:
    return await service.client.post("/v1/score", files={"file": image}, **options)


async def test_a_multipart_file_is_scored(service: Service, picture: bytes) -> None:
    reply = await score(service, picture)
    assert reply.status_code == 200, reply.text
    assert reply.headers["FFAA-Fingerprint"] == FINGERPRINT
    row = ScoreReply.model_validate(reply.json())
    assert (row.status, row.verdict, row.n_faces) == ("scored", "real", 1)
    assert (row.fingerprint, row.warning) == (FINGERPRINT, "a warning")
    assert row.faces[0].reasoning == "It was scripted."


async def test_an_image_in_json_gets_the_same_reply(service: Service, picture: bytes) -> None:
    multipart = (await score(service, picture)).json()
    reply = await service.client.post("/v1/score", json={"image": base64.b64encode(picture).decode()})
    assert reply.status_code == 200, reply.text
    assert reply.json() | {"image_id": ""} == multipart | {"image_id": ""}


async def test_details_are_told_on_request(service: Service, picture: bytes) -> None:
    told = {}
    for detail in Detail:
        reply = await score(service, picture, params={"detail": detail})
        ScoreReply.model_validate(reply.json())
        told[detail] = reply.json()["faces"][0].get("answers")
    assert told[Detail.VERDICT] is None
    assert [answer["question"] for answer in told[Detail.ANSWERS]] == ["open", "assume_real", "assume_fake"]
    assert "class_probabilities" not in told[Detail.ANSWERS][0]
    assert len(told[Detail.FULL][0]["class_probabilities"]) == 4


@pytest.mark.parametrize("data", [b"no image", b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 100])
async def test_what_is_no_image_has_a_reply_that_says_so(service: Service, data: bytes) -> None:
    reply = await score(service, data)
    assert reply.status_code == 200
    row = ScoreReply.model_validate(reply.json())
    assert (row.status, row.verdict, row.image_id, row.faces) == ("decode_failed", None, None, [])
    assert service.hops.engine.begun == 0


async def test_an_image_is_remembered_for_its_owner(service: Service, picture: bytes) -> None:
    image_id = (await score(service, picture)).json()["image_id"]
    owners = [service.gateway.keys.owner(f"Bearer {key}") for key in (KEY, OTHER_KEY)]
    remembered, not_remembered = (service.memory.recall(owner, image_id) for owner in owners)
    assert remembered is not None
    assert remembered.verdict.verdict == "real"
    assert remembered.crops[0].shape == (336, 336, 3)
    assert not_remembered is None


@pytest.mark.parametrize("key", [None, "wrong", ""])
async def test_without_a_key_nothing_is_read_and_nothing_is_told(service: Service, key: str | None) -> None:
    async def body() -> AsyncIterator[bytes]:
        pytest.fail("the body was read")
        yield b""

    headers = {"Authorization": f"Bearer {key}" if key is not None else ""}
    reply = await service.client.post("/v1/score?detail=nonsense", content=body(), headers=headers)
    assert reply.status_code == 401
    assert problem(reply) == "unauthorized"
    assert reply.headers["WWW-Authenticate"] == "Bearer"


async def test_probes_need_no_key(service: Service) -> None:
    for path in ("/healthz", "/openapi.json"):
        assert (await service.client.get(path, headers={"Authorization": ""})).status_code == 200


MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}
JSON = {"Content-Type": "application/json"}
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    ("headers", "body", "status", "kind"),
    [
        (JSON, b"{", 400, "malformed"),
        (JSON, b"\xff", 400, "malformed"),
        (JSON, b"[" * 100_000, 400, "malformed"),
        (MULTIPART, b"--y", 400, "malformed"),
        (MULTIPART, b"", 422, "invalid"),
        (MULTIPART, PART + b"cut", 422, "invalid"),
        (MULTIPART, PART + b"1\r\n" + PART + b"2\r\n--x--\r\n", 400, "malformed"),
        (MULTIPART, PART.replace(b'"file"', b'"image"') + b"1\r\n--x--\r\n", 422, "invalid"),
        (MULTIPART, PART.replace(b'; filename="a"', b"") + b"1\r\n--x--\r\n", 400, "malformed"),
        ({"Content-Type": "multipart/form-data"}, b"--x", 400, "malformed"),
        (JSON, b"[]", 422, "invalid"),
        (JSON, b"{}", 422, "invalid"),
        (JSON, b'"image"', 422, "invalid"),
        (JSON, b'{"image": 5}', 422, "invalid"),
        (JSON, b'{"image": null}', 422, "invalid"),
        (JSON, b'{"image": "a b"}', 422, "invalid"),
        (JSON, '{"image": "é"}'.encode(), 422, "invalid"),
        (JSON, b'{"image": "", "uri": "s3://a/b"}', 422, "invalid"),
        (JSON, b'{"image": "", "more": 1}', 422, "invalid"),
        (JSON, b'{"uri": "file:///etc/passwd"}', 422, "uri-refused"),
        (JSON, b'{"uri": "\\ud800"}', 400, "malformed"),
        ({"Content-Type": "image/png"}, b"x", 415, "unsupported-media-type"),
        ({"Content-Type": ""}, b"x", 415, "unsupported-media-type"),
        ({"Content-Type": "\xff"}, b"x", 415, "unsupported-media-type"),
        (JSON | {"Content-Encoding": "gzip"}, b"{}", 415, "unsupported-media-type"),
    ],
)
async def test_a_body_that_is_no_request_is_refused(
    service: Service, headers: dict[str, str], body: bytes, status: int, kind: str
) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    reply = await service.client.post("/v1/score", content=body, headers=raw)
    assert (reply.status_code, problem(reply)) == (status, kind), reply.text


async def test_a_wrong_detail_a_wrong_method_and_a_wrong_path_are_problems(
    service: Service, picture: bytes
) -> None:
    assert problem(await score(service, picture, params={"detail": "all"})) == "invalid"
    wrong_method = await service.client.get("/v1/score")
    assert (wrong_method.status_code, problem(wrong_method)) == (405, "method-not-allowed")
    wrong_path = await service.client.get("/v2/score")
    assert (wrong_path.status_code, problem(wrong_path)) == (404, "not-found")


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


async def test_a_call_whose_replica_dies_is_made_once_more(service: Service, picture: bytes) -> None:
    service.hops.fail_with = [RayActorError()]
    assert (await score(service, picture)).json()["status"] == "scored"
    service.hops.fail_with = [RayActorError(), RayActorError()]
    reply = await score(service, picture)
    assert (reply.status_code, problem(reply)) == (503, "unavailable")


async def test_an_image_over_which_the_engine_dies_again_and_again_is_not_put_to_it_any_more(
    service: Service, picture: bytes
) -> None:
    for deaths in (2, 1):  # the second time it is alone, and tried once
        service.hops.fail_with = [RayActorError()] * deaths
        reply = await score(service, picture)
        assert (reply.status_code, problem(reply)) == (503, "unavailable")
        assert service.hops.fail_with == []
    service.hops.fail_with = [RayActorError()]
    row = (await score(service, picture)).json()
    assert row["status"] == "answer_failed"
    assert "the engine died over the image before" in row["status_detail"]
    assert len(service.hops.fail_with) == 1


async def test_an_image_that_is_answered_after_a_death_is_as_good_as_any(
    service: Service, picture: bytes
) -> None:
    for _ in range(3):
        service.hops.fail_with = [RayActorError()]
        assert (await score(service, picture)).json()["status"] == "scored"


async def test_suspect_images_go_to_the_engine_one_at_a_time_and_others_go_on(
    service: Service, picture: bytes, other_pictures: tuple[bytes, bytes]
) -> None:
    for suspect in other_pictures:
        service.hops.fail_with = [RayActorError()] * 2
        await score(service, suspect)
    gate = service.hops.engine.gate = asyncio.Event()
    requests = [asyncio.ensure_future(score(service, each)) for each in (*other_pictures, picture)]
    await until(lambda: service.hops.engine.begun == 6 and waits_for(service.gateway._suspects.turn))
    gate.set()
    assert [(await request).json()["status"] for request in requests] == ["scored"] * 3


def waits_for(lock: asyncio.Lock) -> bool:
    return bool(vars(lock)["_waiters"])


async def test_the_service_is_ready_after_a_score_through_every_hop(
    service: Service, records: list[dict[str, Any]]
) -> None:
    reply = await service.client.get("/readyz")
    assert (reply.status_code, problem(reply)) == (503, "unavailable")
    service.hops.fail_with = [RayActorError(), RayActorError()]
    asked = list[str]()
    service.memory.known = lambda owner, sha256: asked.append(owner)  # type: ignore[method-assign]
    await service.gateway.warm_up()
    assert service.hops.engine.begun == 3
    assert len(asked) == 1
    reply = await service.client.get("/readyz")
    assert reply.json() == {"status": "ready", "fingerprint": FINGERPRINT}


async def test_a_service_that_ends_admits_nothing_and_finishes_what_it_has(
    service: Service, picture: bytes
) -> None:
    await service.gateway.warm_up()
    gate = service.hops.engine.gate = asyncio.Event()
    begun = service.hops.engine.begun
    waiting = asyncio.ensure_future(score(service, picture))
    await until(lambda: service.hops.engine.begun > begun)
    draining = asyncio.ensure_future(service.gateway.reconfigure({"drain": True}))
    await asyncio.sleep(0)
    refused = await score(service, picture)
    assert (refused.status_code, problem(refused)) == (503, "unavailable")
    assert (await service.client.get("/readyz")).status_code == 503
    assert not draining.done()
    gate.set()
    assert (await waiting).status_code == 200
    await draining


@pytest.mark.parametrize("memory", [Gone(), Silent()])
async def test_a_verdict_does_not_wait_for_the_memory(
    service: Service, picture: bytes, memory: object
) -> None:
    service.gateway.memory = Handle(memory)
    reply = await score(service, picture)
    assert (reply.status_code, reply.json()["image_id"]) == (200, None)


async def test_a_fault_of_the_service_is_a_problem_that_tells_nothing_of_it(
    service: Service, picture: bytes
) -> None:
    service.hops.fail_with = [RuntimeError("a secret of ours")]
    reply = await score(service, picture)
    assert (reply.status_code, problem(reply)) == (500, "internal")
    assert "secret" not in reply.text
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/healthz", "/v1/score", "/nowhere"])
async def test_every_reply_has_the_security_headers_and_none_allows_other_origins(
    service: Service, path: str
) -> None:
    reply = await service.client.get(path, headers={"Origin": "https://other.example"})
    for name, value in SECURITY_HEADERS.items():
        assert reply.headers[name] == value
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<script>", "é"])
async def test_an_id_that_cannot_be_shown_everywhere_is_not_taken(
    service: Service, records: list[dict[str, Any]], given: str
) -> None:
    await service.client.get("/healthz", headers={"X-Request-Id": given.encode()})
    assert records[-1]["id"] != given
    assert len(records[-1]["id"]) == 36


async def test_a_request_is_logged_in_one_line_without_what_is_private(
    service: Service, picture: bytes, records: list[dict[str, Any]]
) -> None:
    reply = await score(service, picture, params={"detail": "full"}, headers={"X-Request-Id": "mine"})
    (record,) = records
    assert (record["id"], record["method"], record["path"], record["status"]) == (
        "mine",
        "POST",
        "/v1/score",
        200,
    )
    assert record["statuses"] == ["scored"]
    assert list(record["stages"]) == ["receive", "examine", "answer", "judge", "remember"]
    assert record["seconds"] >= sum(record["stages"].values()) - 0.01
    line = json.dumps(record)
    for private in (KEY, reply.json()["faces"][0]["description"], reply.json()["image_id"], "full"):
        assert private not in line


async def test_the_openapi_says_what_is_answered(service: Service) -> None:
    schema = (await service.client.get("/openapi.json")).json()
    post = schema["paths"]["/v1/score"]["post"]
    assert set(post["responses"]) == {"200", "400", "401", "404", "408", "413", "415", "422", "500", "503"}
    assert set(post["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert {"HTTPBearer": []} in post["security"]
    example = post["responses"]["200"]["content"]["application/json"]["example"]
    ScoreReply.model_validate(example)
    references = set(json.dumps(schema).split('"#/components/schemas/')[1:])
    for reference in references:
        assert reference.split('"')[0] in schema["components"]["schemas"]


async def until(condition: Callable[[], object]) -> None:
    """Wait for what other tasks do."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)
