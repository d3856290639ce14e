"""How conversations end that are not simply answered: full, dead, late, or left by their client."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from ffaa_core.engine.base import Piece
from serve.openai_examples import chat
from tests.serve.chatting import PATH, SAID, MakeService, client_of, scored
from tests.serve.stand_ins import KEY, ScriptedEngine, Service


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


@pytest.mark.parametrize(
    "gone",
    [RayActorError(), AioRpcError(StatusCode.CANCELLED, Metadata(), Metadata()), asyncio.CancelledError()],
)
async def test_an_engine_that_is_gone_before_it_answers_is_tried_again_once(
    service: Service, picture: bytes, gone: BaseException
) -> None:
    image_id = await scored(service, picture)
    service.hops.fail_with.append(gone)
    reply = await client_of(service).chat.completions.create(**chat("Why?", f"ffaa:{image_id}"))
    assert reply.choices[0].message.content == SAID
    service.hops.fail_with += [gone, gone]
    with pytest.raises(openai.InternalServerError) as error:
        await client_of(service).chat.completions.create(**chat("Why?", f"ffaa:{image_id}"))
    assert error.value.status_code == 503


async def test_the_deadline_ends_an_answer_and_its_generation(
    service: Service, picture: bytes, records: list[dict[str, Any]]
) -> None:
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
    assert [(each["status"], each["problem"]) for each in records[-2:]] == [(503, "deadline")] * 2
    assert service.hops.engine.cancelled == 2
    assert service.gateway.admission.under_way == 0


class Breaking(ScriptedEngine):
    """An engine that raises, after the first word, what no engine should."""

    async def converse(self, *arguments: Any) -> AsyncGenerator[Piece]:
        async for piece in super().converse(*arguments):
            yield piece
            raise KeyError


async def test_what_nobody_foresaw_ends_a_stream_with_an_event(
    service: Service, picture: bytes, records: list[dict[str, Any]]
) -> None:
    image_id = await scored(service, picture)
    service.hops.engine = Breaking()
    reply = await service.client.post(PATH, json=chat("Why?", f"ffaa:{image_id}", stream=True))
    *_, last, rest = reply.text.split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "internal"
    assert rest == ""
    assert (records[-1]["status"], records[-1]["problem"]) == (500, "internal")


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
