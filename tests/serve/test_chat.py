"""Conversations through OpenAI's own client, the models being stand-ins."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from ffaa_core.answers import Fields
from ffaa_core.engine.base import Sampling
from ffaa_core.questions import OPEN_QUESTIONS
from ffaa_core.verdict import Status
from serve.keys import digest
from serve.openai_errors import PATHS
from serve.openai_examples import REQUEST_BODY, TASKS, chat
from serve.openai_types import MODEL, ChatRequest
from tests.serve.stand_ins import FINGERPRINT, KEY, OTHER_KEY, Service

MakeService = Callable[..., Service]
SAID = "It is real, I think."
PATH = "/v1/chat/completions"


def client_of(service: Service, key: str = KEY) -> AsyncOpenAI:
    transport = service.client._transport
    return AsyncOpenAI(
        base_url="http://service/v1",
        api_key=key,
        max_retries=0,
        http_client=httpx.AsyncClient(transport=transport),
    )


def data_url(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


async def scored(service: Service, picture: bytes) -> str:
    """The id of a picture that has been scored."""
    reply = await service.client.post("/v1/score", files={"file": picture})
    return str(reply.json()["image_id"])


async def refusal(service: Service, body: Any, status: int = 400) -> dict[str, Any]:
    """The error with which a request is refused."""
    reply = await service.client.post(PATH, json=body)
    assert reply.status_code == status, reply.text
    error: dict[str, Any] = reply.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert reply.headers["Content-Type"] == "application/json"
    return error


@pytest.mark.parametrize("task", TASKS)
async def test_each_task_is_put_after_the_scorers_own_answer(
    service: Service, picture: bytes, task: str
) -> None:
    image_id = await scored(service, picture)
    reply = await client_of(service).chat.completions.create(**chat(TASKS[task], f"ffaa:{image_id}"))
    assert reply.choices[0].message.content == SAID
    assert reply.choices[0].finish_reason == "stop"
    ((opening, asked), _, sampling) = service.hops.engine.conversed[0]
    assert opening.question == OPEN_QUESTIONS[0]
    assert opening.answer is not None
    fields = Fields.parse(opening.answer)
    assert fields is not None
    assert fields.reasoning == "It was scripted."
    assert (asked.question, asked.answer) == (TASKS[task], None)
    assert sampling == Sampling()


async def test_a_reply_says_what_it_is_about_and_what_it_took(service: Service, picture: bytes) -> None:
    raw = await client_of(service).chat.completions.with_raw_response.create(
        **chat("Why?", data_url(picture))
    )
    reply = raw.parse()
    assert raw.headers["FFAA-Fingerprint"] == reply.system_fingerprint == FINGERPRINT
    assert (reply.model, reply.object) == (MODEL, "chat.completion")
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (
        700,
        6,
        706,
    )
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == 608
    about = (reply.model_extra or {})["ffaa"]
    assert (about["face"], about["verdict"], about["warning"]) == (0, "real", "a warning")
    assert service.memory.recall(digest(KEY), about["image_id"]) is not None


async def test_an_image_in_a_data_url_is_scored_once_however_often_it_is_sent(
    service: Service, picture: bytes
) -> None:
    client = client_of(service)
    replies = [await client.chat.completions.create(**chat("Why?", data_url(picture))) for _ in range(3)]
    assert service.hops.engine.begun == 3  # the three questions
    assert len({(reply.model_extra or {})["ffaa"]["image_id"] for reply in replies}) == 1
    await client_of(service, OTHER_KEY).chat.completions.create(**chat("Why?", data_url(picture)))
    assert service.hops.engine.begun == 6


async def test_it_is_about_the_face_most_likely_forged_unless_another_is_named(
    service: Service, picture: bytes
) -> None:
    image_id = await scored(service, picture)
    kept = service.memory.recall(digest(KEY), image_id)
    assert kept is not None
    (face,), (crop,) = kept.verdict.faces, kept.crops
    faces = tuple(
        replace(face, forgery_score=score, crop_sha256=f"{number}" * 64)
        for number, score in enumerate([0.2, 0.7, 0.9, 0.4])
    )
    faces = (*faces[:2], replace(faces[2], status=Status.JUDGE_FAILED), faces[3])
    verdict = replace(kept.verdict, status=Status.JUDGE_FAILED, status_detail="1 of 4 faces", faces=faces)
    several = f"ffaa:{service.memory.remember(digest(KEY), verdict, [crop] * 4)}"
    talked_about = []
    for face_named in ({}, {"face": 0}, {"face": 3}):
        reply = await service.client.post(PATH, json=chat("Why?", several, **face_named))
        talked_about.append((reply.json()["ffaa"]["face"], service.hops.engine.conversed[-1][1][0]))
    assert talked_about == [(1, "1"), (0, "0"), (3, "3")]
    failed = await refusal(service, chat("Why?", several, face=2))
    assert (failed["code"], "1 of 4 faces" in failed["message"]) == ("judge_failed", True)
    assert (await refusal(service, chat("Why?", several, face=4)))["code"] == "face_not_found"


async def test_a_conversation_goes_on(service: Service, picture: bytes) -> None:
    image_id = await scored(service, picture)
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Use simple words."}]},
        {"role": "user", "content": f"ffaa:{image_id} Is it real?"},
    ]
    client = client_of(service)
    reply = await client.chat.completions.create(model=MODEL, messages=messages)
    messages += [reply.choices[0].message, {"role": "user", "content": "Why do you think so?"}]
    await client.chat.completions.create(model=MODEL, messages=messages)
    turns, _, _ = service.hops.engine.conversed[-1]
    assert [(turn.question, turn.answer) for turn in turns[1:]] == [
        ("Be brief.\n\nUse simple words.\n\nIs it real?", SAID),
        ("Why do you think so?", None),
    ]


async def test_a_stream_has_the_same_words_piece_by_piece(service: Service, picture: bytes) -> None:
    stream = await client_of(service).chat.completions.create(**chat("Why?", data_url(picture), stream=True))
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID
    assert len(chunks) == 1 + len(service.hops.engine.words) + 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert (chunks[0].model_extra or {})["ffaa"]["verdict"] == "real"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 7 + ["stop"]
    assert {(chunk.id, chunk.system_fingerprint) for chunk in chunks} == {(chunks[0].id, FINGERPRINT)}
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)


async def test_a_stream_ends_with_its_usage_if_that_is_asked_for(service: Service, picture: bytes) -> None:
    body = chat("Why?", data_url(picture), stream=True, stream_options={"include_usage": True})
    reply = await service.client.post(PATH, json=body)
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    *told, last, done, rest = reply.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    chunk = json.loads(last.removeprefix("data: "))
    assert chunk["choices"] == []
    assert chunk["usage"]["total_tokens"] == 706
    assert all(json.loads(each.removeprefix("data: "))["usage"] is None for each in told)


async def test_what_the_client_wants_of_the_sampling_is_handed_on(service: Service, picture: bytes) -> None:
    more = {"max_completion_tokens": 7, "temperature": 0.5, "top_p": 0.9, "stop": ["a", "b"], "seed": 3}
    await client_of(service).chat.completions.create(**chat("Why?", data_url(picture), **more))
    await client_of(service).chat.completions.create(
        **chat("Why?", data_url(picture), max_tokens=7, temperature=0, stop="a", user="me", n=1)
    )
    assert [sampling for _, _, sampling in service.hops.engine.conversed] == [
        Sampling(max_tokens=7, temperature=0.5, top_p=0.9, stop=("a", "b"), seed=3),
        Sampling(max_tokens=7, stop=("a",)),
    ]


async def test_an_image_is_its_keys_alone(service: Service, picture: bytes) -> None:
    image_id = await scored(service, picture)
    with pytest.raises(openai.NotFoundError, match="send the image again") as error:
        await client_of(service, OTHER_KEY).chat.completions.create(**chat("Why?", f"ffaa:{image_id}"))
    assert error.value.code == "image_not_found"
    unknown = await refusal(service, chat("Why?", f"ffaa:{'0' * 32}"), 404)
    assert unknown["message"] == error.value.body["message"]  # type: ignore[index]


async def test_the_model_is_listed(service: Service) -> None:
    client = client_of(service)
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).owned_by == "ffaa"
    with pytest.raises(openai.NotFoundError) as error:
        await client.models.retrieve("gpt-4o")
    assert error.value.code == "model_not_found"


@pytest.mark.parametrize("path", [PATH, "/v1/models", f"/v1/models/{MODEL}"])
async def test_without_a_key_nothing_is_told(service: Service, path: str) -> None:
    method = "POST" if path == PATH else "GET"
    reply = await service.client.request(method, path, headers={"Authorization": "Bearer no"}, content=b"x")
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "invalid_api_key"
    assert reply.headers["WWW-Authenticate"] == "Bearer"


USER = {"role": "user", "content": f"ffaa:{'0' * 32} Why?"}
ASSISTANT = {"role": "assistant", "content": "So."}
IMAGE = {"type": "image_url", "image_url": {"url": f"ffaa:{'0' * 32}"}}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "system", "content": "Be brief."}], "messages.0"),
        ([ASSISTANT, USER], "messages.0"),
        ([USER, ASSISTANT], "messages.1"),
        ([USER, USER], "messages.1"),
        ([USER, {"role": "system", "content": "Be brief."}], "messages.1"),
        ([USER, ASSISTANT, {"role": "user", "content": "  "}], "messages.2"),
        ([USER, ASSISTANT, {"role": "user", "content": [IMAGE]}], "messages.2"),
        ([{"role": "user", "content": "Why?"}], "messages.0"),
        ([{"role": "user", "content": [IMAGE]}], "messages.0"),
        ([{"role": "user", "content": [IMAGE, IMAGE, {"type": "text", "text": "Why?"}]}], "messages.0"),
        ([{"role": "tool", "content": "4"}], "messages.0"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages.0.user.content"),
        ([{"role": "user", "content": "\u2028", "more": 1}], "messages.0.user.more"),
    ],
)
async def test_messages_that_are_no_conversation_about_an_image_are_refused(
    service: Service, messages: list[Any], param: str
) -> None:
    error = await refusal(service, {"model": MODEL, "messages": messages})
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(param)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/photo.jpg",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "s3://bucket/key",
        "data:text/html;base64,AAAA",
        "data:image/png,AAAA",
        "data:image/png;base64,====x",
        "ffaa:../../x",
        f"ffaa:{'0' * 33}",
        "",
    ],
)
async def test_no_other_address_of_an_image_is_opened(service: Service, url: str) -> None:
    assert (await refusal(service, chat("Why?", url)))["param"] == "messages.0"


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"n": 2}, "n", "invalid_value"),
        ({"logprobs": True}, "logprobs", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools", "invalid_value"),
        ({"response_format": {"type": "json_object"}}, "response_format.type", "invalid_value"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": "1"}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"face": -1}, "face", "invalid_value"),
        ({"face": 1}, "face", "face_not_found"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"best_of": 2}, "best_of", "unknown_parameter"),
        ({"model": "gpt-4o"}, "model", "model_not_found"),
    ],
)
async def test_what_is_not_offered_or_not_known_is_refused(
    service: Service, picture: bytes, more: dict[str, Any], param: str, code: str
) -> None:
    body = chat("Why?", data_url(picture)) | more
    error = await refusal(service, body, 404 if code == "model_not_found" else 400)
    assert (error["param"].split(".function-")[0][: len(param)], error["code"]) == (param, code)
    assert not service.hops.engine.conversed


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b'{"model": "\xff"}', 400),
        (b'{"model": "\\ud800"}', 400),
        (b'{"model": NaN}', 400),
        (b"[" * 100_000, 400),
        (b"[" + b"[]," * 200_000 + b"[]]", 400),
        (b"1" * 5000, 400),
        (b"[]", 400),
    ],
)
async def test_a_body_that_is_no_request_is_refused(service: Service, content: bytes, status: int) -> None:
    reply = await service.client.post(PATH, content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code == status, reply.text
    assert len(reply.json()["error"]["message"]) < 500


async def test_a_body_of_another_type_or_too_large_is_refused(make_service: MakeService) -> None:
    service = make_service(decode={"max_bytes": 1000})
    reply = await service.client.post(PATH, content=b"x", headers={"Content-Type": "text/plain"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (415, "unsupported_media_type")
    for size in (2000, 100_000):
        assert (await refusal(service, chat("Why?", data_url(bytes(size))), 413))["code"] == "too_large"


async def test_other_methods_are_refused_in_openais_words(service: Service) -> None:
    reply = await service.client.put(PATH)
    assert (reply.status_code, reply.json()["error"]["code"]) == (405, "method_not_allowed")


async def test_an_image_that_cannot_be_decoded_cannot_be_talked_about(service: Service) -> None:
    error = await refusal(service, chat("Why?", data_url(b"no image")))
    assert error["code"] == "decode_failed"
    assert "decode_failed" in error["message"]


async def test_a_conversation_that_does_not_fit_is_refused_before_the_stream_begins(
    service: Service, picture: bytes
) -> None:
    for stream in (False, True):
        error = await refusal(service, chat("Why? " * 1000, data_url(picture), stream=stream))
        assert error["code"] == "context_length_exceeded"


@pytest.mark.parametrize("stream", [False, True])
async def test_when_the_engine_is_full_the_client_is_told_to_come_back(
    service: Service, picture: bytes, stream: bool
) -> None:
    image_id = await scored(service, picture)
    service.hops.fail_with.append(BackPressureError(num_queued_requests=1, max_queued_requests=1))
    reply = await service.client.post(PATH, json=chat("Why?", f"ffaa:{image_id}", stream=stream))
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "2")
    assert reply.json()["error"] == {
        "message": "too many requests wait for the models",
        "type": "server_error",
        "param": None,
        "code": "overloaded",
    }


async def test_an_engine_that_dies_before_it_answers_is_tried_again_once(
    service: Service, picture: bytes
) -> None:
    image_id = await scored(service, picture)
    service.hops.fail_with.append(RayActorError())
    reply = await client_of(service).chat.completions.create(**chat("Why?", f"ffaa:{image_id}"))
    assert reply.choices[0].message.content == SAID
    service.hops.fail_with += [RayActorError(), RayActorError()]
    with pytest.raises(openai.InternalServerError) as error:
        await client_of(service).chat.completions.create(**chat("Why?", f"ffaa:{image_id}"))
    assert error.value.status_code == 503


async def test_the_deadline_ends_an_answer_and_its_generation(service: Service, picture: bytes) -> None:
    image_id = await scored(service, picture)
    service.hops.engine.gate = asyncio.Event()
    body = chat("Why?", f"ffaa:{image_id}")
    whole = await service.client.post(PATH, json=body, headers={"Prefer": "wait=1"})
    assert whole.status_code == 503
    assert whole.json()["error"]["code"] == "deadline"
    streamed = await service.client.post(PATH, json=body | {"stream": True}, headers={"Prefer": "wait=1"})
    assert streamed.status_code == 200  # it had begun
    *_, before, last, rest = streamed.text.split("\n\n")
    assert json.loads(before.removeprefix("data: "))["choices"][0]["delta"] == {"content": " is"}
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "deadline"
    assert rest == ""
    assert service.hops.engine.cancelled == 2
    assert service.gateway.admission.under_way == 0


@asynccontextmanager
async def begun(service: Service, body: Any) -> AsyncIterator["asyncio.Task[None]"]:
    """A streamed request whose first events have come, in the raw terms of ASGI."""
    sent: asyncio.Queue[Any] = asyncio.Queue()
    content = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    left = asyncio.Event()

    async def receive() -> Any:
        if content:
            return content.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    headers = [(b"authorization", f"Bearer {KEY}".encode()), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": PATH,
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "scheme": "http",
        "server": ("service", 80),
    }
    app = service.client._transport.app  # type: ignore[attr-defined]
    task = asyncio.create_task(app(scope, receive, sent.put))
    for _ in range(4):  # the head, the role, and two words
        await sent.get()
    yield task
    left.set()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_the_generation_for_a_client_that_left_is_ended(
    service: Service, picture: bytes, cancelled: bool
) -> None:
    image_id = await scored(service, picture)
    service.hops.engine.gate = asyncio.Event()
    async with begun(service, chat("Why?", f"ffaa:{image_id}", stream=True)) as task:
        assert service.gateway.admission.under_way == 1
        assert service.hops.engine.cancelled == 0
        if cancelled:
            task.cancel()
    assert service.hops.engine.cancelled == 1
    assert service.gateway.admission.under_way == 0


async def test_a_stream_counts_as_a_request_until_it_ends(make_service: MakeService, picture: bytes) -> None:
    service = make_service(max_requests=1)
    image_id = await scored(service, picture)
    service.hops.engine.gate = asyncio.Event()
    async with begun(service, chat("Why?", f"ffaa:{image_id}", stream=True)):
        reply = await service.client.post(PATH, json=chat("Why?", f"ffaa:{image_id}"))
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "overloaded")


async def test_the_documented_examples_are_requests(service: Service) -> None:
    examples = REQUEST_BODY["content"]["application/json"]["examples"]
    assert set(TASKS) < set(examples)
    for example in examples.values():
        ChatRequest.model_validate(example["value"])
    schema = (await service.client.get("/openapi.json")).json()
    assert "#/$defs" not in json.dumps(schema)
    assert all(
        "422" not in method["responses"]
        for path, methods in schema["paths"].items()
        if path.startswith(PATHS)
        for method in methods.values()
    )
    named = {ref for ref in _refs(schema) if ref.startswith("#/components/schemas/")}
    assert {ref.rsplit("/", 1)[1] for ref in named} <= schema["components"]["schemas"].keys()


def _refs(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(_refs, node.values()))
    return set().union(*map(_refs, node)) if isinstance(node, list) else set()
