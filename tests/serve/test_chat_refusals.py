"""Requests for conversations that are refused, in OpenAI's words."""

from typing import Any

import pytest

from serve.openai_examples import chat
from serve.openai_types import MODEL
from tests.serve.chatting import PATH, MakeService, data_url, refusal
from tests.serve.stand_ins import Service

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
        ({"logprobs": 0}, "logprobs", "invalid_value"),
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
