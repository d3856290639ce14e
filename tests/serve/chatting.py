"""What tests of conversations share: a client, a picture in a conversation, a refusal."""

import base64
from collections.abc import Callable
from typing import Any

import httpx
from openai import AsyncOpenAI

from tests.serve.stand_ins import KEY, Service

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
