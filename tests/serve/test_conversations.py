"""Upload, verdict, conversation: OpenAI's client against the real service with the real models."""

import base64
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from skimage import data

from serve.openai_examples import chat
from serve.openai_types import MODEL
from tests.fixtures.service import KEY, OTHER_KEY, RunningService, until
from tests.images import png

ASTRONAUT = png(data.astronaut())
COIN = png(data.coins())
LONG = 1024
"""Tokens of an answer that takes seconds."""
TRIES = 10


def client_of(running: RunningService, key: str) -> OpenAI:
    return OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def client(running: RunningService) -> Iterator[OpenAI]:
    with client_of(running, KEY) as client:
        yield client


@pytest.fixture(scope="module")
def verdict(running: RunningService) -> dict[str, Any]:
    """What /v1/score says of an upload."""
    with running.client() as client:
        reply: dict[str, Any] = client.post("/v1/score", files={"file": ASTRONAUT}).json()
        return reply


@pytest.fixture(scope="module")
def image(verdict: dict[str, Any]) -> str:
    return f"ffaa:{verdict['image_id']}"


def test_a_conversation_about_an_upload_begins_with_its_verdict(
    client: OpenAI, verdict: dict[str, Any], image: str
) -> None:
    messages: list[Any] = chat("Is it real or fake?", image)["messages"]
    first = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=24)
    about = (first.model_extra or {})["ffaa"]
    face = verdict["faces"][0]
    assert about["verdict"] == face["verdict"]
    assert about["forgery_score"] == pytest.approx(face["forgery_score"], abs=1e-2)
    assert (about["image_id"], about["warning"]) == (verdict["image_id"], verdict["warning"])
    assert first.system_fingerprint == verdict["fingerprint"]
    assert first.usage is not None
    assert first.usage.prompt_tokens_details is not None
    assert first.usage.prompt_tokens_details.cached_tokens is not None
    assert first.usage.prompt_tokens_details.cached_tokens >= 576  # computed for the scorer's questions
    assert 0 < first.usage.completion_tokens <= 24

    messages += [first.choices[0].message, {"role": "user", "content": "How was it made?"}]
    second = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=24)
    assert second.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + first.usage.completion_tokens


def test_a_stream_says_the_same_as_it_comes(client: OpenAI, image: str) -> None:
    body = chat("Describe the artifacts.", image, max_tokens=128)  # what is slow to be sent goes together
    whole = client.chat.completions.create(**body)
    with client.chat.completions.create(
        **body, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    *told, last = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == whole.choices[0].message.content
    assert told[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert len(told) > 4
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_an_image_in_a_data_url_is_scored_by_the_way(client: OpenAI, verdict: dict[str, Any]) -> None:
    reply = client.chat.completions.create(**chat("Why?", data_url(ASTRONAUT), max_tokens=4))
    about = (reply.model_extra or {})["ffaa"]
    assert about["verdict"] == verdict["faces"][0]["verdict"]
    again = client.chat.completions.create(**chat("Why?", f"ffaa:{about['image_id']}", max_tokens=4))
    assert again.choices[0].message.content == reply.choices[0].message.content


def test_an_image_without_a_face_cannot_be_talked_about(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no_face") as error:
        client.chat.completions.create(**chat("Why?", data_url(COIN)))
    assert error.value.code == "no_face"


def test_what_does_not_fit_is_refused_with_the_figures(client: OpenAI, image: str) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="2,048") as error:
            client.chat.completions.create(**chat("Why?", image, max_tokens=2000), stream=stream)
        assert error.value.code == "context_length_exceeded"


def test_another_key_does_not_see_an_image(running: RunningService, image: str) -> None:
    with client_of(running, OTHER_KEY) as other, pytest.raises(openai.NotFoundError):
        other.chat.completions.create(**chat("Why?", image))
    with client_of(running, "no key") as nobody, pytest.raises(openai.AuthenticationError):
        nobody.models.list()


def test_when_a_client_leaves_a_stream_its_generation_ends_in_vllm(
    running: RunningService, client: OpenAI, image: str
) -> None:
    until(lambda: running.under_way() == 0, 60)
    engine = running.engine_process()
    body = chat("Why?", image, max_tokens=LONG)
    for _ in range(TRIES):
        finished = running.ask("Engine", "figures")["requests"]
        with client.chat.completions.create(**body, stream=True) as stream:
            next(iter(stream))
            with running.engine_held(engine):
                if running.under_way():
                    stream.close()
                    until(lambda: running.under_way() == 0, 60)
                    break
    else:
        pytest.fail(f"{TRIES} streams came to their end before they could be left")
    assert running.ask("Engine", "figures")["requests"] == finished
    assert running.computes_nothing()
    left = {"path": "/v1/chat/completions", "status": 499}
    until(lambda: any(left.items() <= record.items() for record in running.logged()), 10)


def data_url(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
