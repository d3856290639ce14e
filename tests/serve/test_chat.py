"""Conversations through OpenAI's own client, the models being stand-ins."""

import json
from dataclasses import replace
from typing import Any

import openai
import pytest

from ffaa_core.answers import Fields
from ffaa_core.engine.base import Sampling
from ffaa_core.questions import OPEN_QUESTIONS
from ffaa_core.verdict import Status
from serve.keys import digest
from serve.openai_errors import PATHS
from serve.openai_examples import REQUEST_BODY, TASKS, chat
from serve.openai_types import MODEL, ChatRequest
from tests.serve.chatting import PATH, SAID, client_of, data_url, refusal, scored
from tests.serve.stand_ins import FINGERPRINT, KEY, OTHER_KEY, Service


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
    assert await service.memory.recall(digest(KEY), about["image_id"]) is not None


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
    kept = await service.memory.recall(digest(KEY), image_id)
    assert kept is not None
    (face,), (crop,) = kept.verdict.faces, kept.crops
    faces = tuple(
        replace(face, forgery_score=score, crop_sha256=f"{number}" * 64)
        for number, score in enumerate([0.2, 0.7, 0.9, 0.4])
    )
    faces = (*faces[:2], replace(faces[2], status=Status.JUDGE_FAILED), faces[3])
    verdict = replace(kept.verdict, status=Status.JUDGE_FAILED, status_detail="1 of 4 faces", faces=faces)
    several = f"ffaa:{await service.memory.remember(digest(KEY), verdict, [crop] * 4)}"
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
