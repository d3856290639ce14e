"""Requests and replies of the gateway, its models being stand-ins."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from ray.exceptions import RayActorError

from ffaa_core.engine.base import Generation
from ffaa_core.errors import EngineError
from serve import gateway
from serve.envelope import SECURITY_HEADERS
from serve.replies import Detail, ScoreReply
from tests.serve.asking import JSON, problem, score, until
from tests.serve.chatting import PATH as CHAT
from tests.serve.stand_ins import (
    FINGERPRINT,
    KEY,
    OTHER_KEY,
    Gone,
    Handle,
    ScriptedEngine,
    Service,
    Silent,
)


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
    remembered, not_remembered = [await service.memory.recall(owner, image_id) for owner in owners]
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
MULTIPART_OF_NO_CHARSET = {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"}


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
        (MULTIPART_OF_NO_CHARSET, PART + b"1\r\n--x--\r\n", 400, "malformed"),
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


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/score", {"x" * 10**6: 1}),
        ("/v1/score", {f"x{number}": 1 for number in range(10_000)}),
        (CHAT, {"model": "ffaa", "messages": [], "x" * 10**6: 1}),
        (CHAT, {"model": "ffaa", "messages": [{"role": "x" * 10**6}]}),
        (CHAT, {"model": "ffaa", "messages": [{"role": f"x{number}"} for number in range(10_000)]}),
    ],
)
async def test_a_refusal_is_short_however_much_is_wrong(service: Service, path: str, asked: Any) -> None:
    reply = await service.client.post(path, json=asked)
    assert reply.status_code in (400, 422), reply.text[:1000]
    assert len(reply.content) < 1500


async def test_a_wrong_detail_a_wrong_method_and_a_wrong_path_are_problems(
    service: Service, picture: bytes
) -> None:
    assert problem(await score(service, picture, params={"detail": "all"})) == "invalid"
    wrong_method = await service.client.get("/v1/score")
    assert (wrong_method.status_code, problem(wrong_method)) == (405, "method-not-allowed")
    wrong_path = await service.client.get("/v2/score")
    assert (wrong_path.status_code, problem(wrong_path)) == (404, "not-found")


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


class Refusing(ScriptedEngine):
    """An engine that lives and answers nothing."""

    async def generate(self, *_: Any, **__: Any) -> Generation:
        self.begun += 1
        raise EngineError("there is no room for an image")


class Babbling(ScriptedEngine):
    """An engine whose answers are malformed, as those to noise are."""

    async def generate(self, *arguments: Any, **options: Any) -> Generation:
        return replace(await super().generate(*arguments, **options), text="What do I see?")


async def test_an_engine_that_refuses_is_not_ready(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "WARM_UP_PAUSE_S", 0.01)
    sound, service.hops.engine = service.hops.engine, Refusing()
    warming_up = asyncio.ensure_future(service.gateway.warm_up())
    await until(lambda: service.hops.engine.begun > 3)
    assert (await service.client.get("/readyz")).status_code == 503
    service.hops.engine = sound
    await warming_up
    assert (await service.client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("engine", [ScriptedEngine(), Babbling()])
async def test_a_mids_that_fails_on_each_face_is_not_ready(
    service: Service, monkeypatch: pytest.MonkeyPatch, engine: ScriptedEngine
) -> None:
    monkeypatch.setattr(gateway, "WARM_UP_PAUSE_S", 0.01)
    service.hops.engine = engine
    judged, sound = 0, service.hops.logits

    async def fails(crops: Sequence[Any], masked_answers: Any) -> list[Any]:
        nonlocal judged
        judged += 1
        return [None] * len(crops)

    service.hops.logits = fails  # type: ignore[method-assign]
    warming_up = asyncio.ensure_future(service.gateway.warm_up())
    await until(lambda: judged > 1)
    assert (await service.client.get("/readyz")).status_code == 503
    service.hops.logits = sound  # type: ignore[method-assign]
    await warming_up
    assert (await service.client.get("/readyz")).status_code == 200


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
