"""Deployments in this process: handles that call an object as Ray Serve's handles call a replica."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cache
from inspect import isawaitable
from typing import Any

import httpx
import numpy as np
from ray.exceptions import RayActorError

from ffaa_core.answers import Answer, Determination, Fields
from ffaa_core.conversation import Turn
from ffaa_core.engine.base import Crop, EngineFigures, Generation, Piece, Sampling
from ffaa_core.errors import ContextLengthError
from ffaa_core.examiner import Examiner
from ffaa_core.pipeline import Logits, PendingImage, answer
from ffaa_core.settings import AnswerSettings, DecodeSettings, FaceSettings, ScoringSettings
from serve.api import create_api
from serve.config import ServeConfig, ServiceSettings
from serve.gateway import Gateway
from serve.memory import Memory
from serve.release import Release

KEY, OTHER_KEY = "the key of the tests", "another key of the tests"
FINGERPRINT = "0123456789abcdef"


class Handle:
    """What a deployment's handle is to its callers: `handle.method.remote(...)`, awaited or cancelled."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return _Method(getattr(self._target, name))


class _Method:
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def remote(self, *arguments: Any) -> "asyncio.Task[Any]":
        return asyncio.ensure_future(self._call(arguments))

    def options(self, *, stream: bool) -> "_Stream":
        assert stream
        return _Stream(self._function)

    async def _call(self, arguments: tuple[Any, ...]) -> Any:
        result = self._function(*arguments)
        return await result if isawaitable(result) else result


class _Stream:
    """A call whose result comes in pieces. Only `cancel` ends it early, as with a replica elsewhere."""

    def __init__(self, function: Callable[..., AsyncGenerator[Any]]) -> None:
        self._function = function
        self._items: asyncio.Queue[tuple[Any, BaseException | None]] = asyncio.Queue()

    def remote(self, *arguments: Any) -> "_Stream":
        self._task = asyncio.ensure_future(self._run(arguments))
        return self

    def cancel(self) -> None:
        self._task.cancel()

    def __aiter__(self) -> "_Stream":
        return self

    async def __anext__(self) -> Any:
        item, error = await self._items.get()
        if error:
            raise error
        return item

    async def _run(self, arguments: tuple[Any, ...]) -> None:
        try:
            async for item in self._function(*arguments):
                self._items.put_nowait((item, None))
        except BaseException as error:  # also that it was cancelled, which is told to the caller elsewhere
            self._items.put_nowait((None, error))
        self._items.put_nowait((None, StopAsyncIteration()))


class ScriptedEngine:
    """Says real of every face, after `gate` if there is one; counts what was `begun` and `cancelled`, and
    keeps the `ids` of the crops that it was asked about.
    """

    def __init__(self) -> None:
        self.description = {"adapter": "scripted"}
        self.gate: asyncio.Event | None = None
        self.begun = self.cancelled = 0
        self.ids: list[str] = []
        self.words = ["It", " is", " real", ",", " I", " think."]
        self.conversed: list[tuple[tuple[Turn, ...], str, Sampling]] = []

    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        self.begun += 1
        self.ids.append(crop_sha256)
        try:
            if self.gate:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        fields = Fields(
            description=f"A face, {crop_sha256[:8]}.",
            reasoning="It was scripted.",
            result=Determination.REAL,
            probability=0.5,
            forgery_type=None,
        )
        return Generation(
            text=fields.render(),
            finish_reason="stop",
            prompt_tokens=600,
            cached_tokens=0,
            generated_tokens=40,
            token_ids=(),
        )

    async def converse(
        self, turns: Sequence[Turn], crop: Crop, crop_sha256: str, sampling: Sampling
    ) -> AsyncGenerator[Piece]:
        """Say `words` one by one, before the third of them after `gate`; what it was asked is `conversed`."""
        self.conversed.append((tuple(turns), crop_sha256, sampling))
        if len(turns[-1].question) > 2048:
            raise ContextLengthError("the model's context is 2,048 tokens")
        try:
            for number, word in enumerate(self.words, 1):
                if self.gate and number > 2:
                    await self.gate.wait()
                yield Piece(
                    text=word,
                    finish_reason="stop" if number == len(self.words) else None,
                    prompt_tokens=700,
                    cached_tokens=608,
                    generated_tokens=number,
                )
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    def figures(self) -> EngineFigures:
        return EngineFigures()

    async def check(self) -> None:
        pass

    async def close(self) -> None:
        pass


def sure(masked_answers: Sequence[Sequence[str]]) -> list[Logits | None]:
    """What a MIDS says that believes every answer."""
    return [np.array([[9.0, 0, 0, 9.0]] * len(answers)) for answers in masked_answers]


@dataclass
class Hops:
    """The engine and the judge behind a gateway; calls of the engine raise what `fail_with` holds first."""

    fail_with: list[BaseException] = field(default_factory=list)
    engine: ScriptedEngine = field(default_factory=ScriptedEngine)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(32))

    async def answer(self, pending: PendingImage, owner: str) -> list[tuple[Answer, ...]]:
        if self.fail_with:
            raise self.fail_with.pop(0)
        answered = await answer(pending, self.engine, AnswerSettings(), self.room)
        return [face.answers for face in answered.faces]

    async def converse(
        self, turns: Sequence[Turn], crop: Crop, crop_sha256: str, sampling: Sampling, owner: str
    ) -> AsyncGenerator[Piece]:
        if self.fail_with:
            raise self.fail_with.pop(0)
        async with aclosing(self.engine.converse(turns, crop, crop_sha256, sampling)) as pieces:
            async for piece in pieces:
                yield piece

    async def logits(
        self, crops: Sequence[Crop], masked_answers: Sequence[Sequence[str]]
    ) -> list[Logits | None]:
        return sure(masked_answers)


@dataclass
class Service:
    """A gateway with stand-ins for all that is behind it, and a client with a key."""

    gateway: Gateway
    hops: Hops
    memory: Memory
    client: httpx.AsyncClient


class Gone:
    """A deployment all of whose replicas die."""

    def remember(self, *_: object) -> str:
        raise RayActorError()


class Silent:
    """A deployment whose replicas never answer."""

    async def remember(self, *_: object) -> str:
        await asyncio.Event().wait()
        raise AssertionError


@cache
def examiner(max_bytes: int) -> Examiner:
    """One for all services: its process takes a second to start, and ends with the tests."""
    settings = DecodeSettings(max_bytes=max_bytes)
    return Examiner(ScoringSettings(decode=settings, faces=FaceSettings(mode="whole_image")), processes=2)


def service_of(decode: Mapping[str, Any] | None = None, **settings: Any) -> Service:
    """A service with these settings; the whole image is a face, so that any picture has one."""
    config = ServeConfig(
        decode=DecodeSettings(**decode or {}),
        faces=FaceSettings(mode="whole_image"),
        service=ServiceSettings(**settings),
    )
    release = Release(config=config, bundle="/none", fingerprint=FINGERPRINT, warning="a warning")
    hops, memory = Hops(), Memory(config.service)
    gateway = Gateway(release, Handle(hops), Handle(hops), Handle(memory))
    gateway._examiner = examiner(config.decode.max_bytes)
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(create_api(gateway), raise_app_exceptions=False),
        base_url="http://service",
        headers={"Authorization": f"Bearer {KEY}"},
    )
    return Service(gateway=gateway, hops=hops, memory=memory, client=client)
