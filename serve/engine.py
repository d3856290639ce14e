"""The answer engine as a deployment: vLLM, asked about the faces of several images at once."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, NoReturn, Protocol

from ffaa_core.answers import Answer
from ffaa_core.conversation import Turn
from ffaa_core.engine.base import (
    AnswerEngine,
    ConversingEngine,
    Crop,
    EngineFigures,
    Generation,
    Piece,
    Sampling,
)
from ffaa_core.errors import EngineDeadError
from ffaa_core.pipeline import PendingImage, answer
from ffaa_core.reaper import kill_below
from serve.listening import listen_to_the_cluster
from serve.metrics import EngineMetrics
from serve.release import Release

LEAST_SILENCE_S = 30.0
"""An engine may be silent so long, however short deadlines are: one step may have much to compute."""
PATIENCE_S = 1.0
"""How long one call of `check_health` waits for the engine; it may answer while a later one waits."""

log = logging.getLogger("ray.serve")


class ServedEngine(ConversingEngine, Protocol):
    """An engine that can say whether it lives: `ffaa_core.engine.vllm_engine.VllmEngine`."""

    async def check(self) -> None:
        """Return when the engine says that it lives; raise EngineDeadError if it is gone."""
        ...


class Engine:
    """Holds one engine. When that dies or hangs this process exits, and Ray Serve starts another."""

    async def __init__(self, release: Release) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        listen_to_the_cluster()
        settings = release.config.engine
        self._answers = release.config.answers
        self._metrics = EngineMetrics()  # also of one that does not get to the end of its loading
        self._engine = await self.start_engine(release)
        self._room = asyncio.Semaphore(settings.max_concurrent_faces)
        self._deadline_s = release.config.service.deadline_seconds
        self._under_way = 0
        self._silence_s = max(LEAST_SILENCE_S, release.config.service.deadline_seconds / 2)
        self._asked_at = 0.0
        self._check: asyncio.Future[None] | None = None

    async def start_engine(self, release: Release) -> ServedEngine:
        """Load the bundle's multimodal LLM; other engines override this."""
        from ffaa_core.engine.vllm_engine import VllmEngine

        bundle = await asyncio.to_thread(release.open_bundle, "mllm", "adapter")
        return await VllmEngine.start(bundle.mllm, bundle.adapter, release.config.engine)

    async def answer(self, pending: PendingImage, owner: str) -> list[tuple[Answer, ...]]:
        """Ask the three questions of every face of an owner's image; returns each face's answers.

        To cancel the call cancels what vLLM does for it. Of a gateway that died nobody does: no request has
        longer than its deadline.
        """
        self._under_way += 1
        try:
            async with asyncio.timeout(self._deadline_s):
                answered = await answer(pending, Owned(self._engine, owner), self._answers, self._room)
            return [face.answers for face in answered.faces]
        except EngineDeadError:
            _end()
        finally:
            self._under_way -= 1

    async def converse(
        self, turns: Sequence[Turn], crop: Crop, crop_sha256: str, sampling: Sampling, owner: str
    ) -> AsyncGenerator[Piece]:
        """Go on with an owner's conversation, as `ConversingEngine.converse`; it takes the room of a face."""
        self._under_way += 1
        try:
            async with (
                self._room,
                aclosing(self._engine.converse(turns, crop, id_of(owner, crop_sha256), sampling)) as pieces,
            ):
                async for piece in pieces:
                    yield piece
        except EngineDeadError:
            _end()
        finally:
            self._under_way -= 1

    async def figures(self) -> dict[str, Any]:
        """What was done since the start, as `EngineFigures`, and how many `images` are under way."""
        return asdict(self._engine.figures()) | {"images": self._under_way}

    async def check_health(self) -> None:
        """Called by Ray Serve every few seconds. An engine that has died idle is noticed, too, and so is one
        that does not even say that it lives for half of a deadline.
        """
        self._metrics.now(self._engine.figures(), self._under_way)
        if self._check is None:
            self._asked_at = time.monotonic()
            self._check = asyncio.ensure_future(self._engine.check())
        done, _ = await asyncio.wait([self._check], timeout=PATIENCE_S)
        if done:
            died, self._check = self._check.exception(), None
            if died:
                log.error("the engine is gone: %s", died)
                _end()
        elif time.monotonic() - self._asked_at > self._silence_s:
            log.error("the engine has said nothing for %g s: it is ended", self._silence_s)
            _end()


class Owned:
    """An engine as one owner has it: what it computes is reused for that owner only.

    vLLM reuses what it has computed of a prompt, and it takes a crop for the same by its id alone. Were an id
    common to all, who has the same picture could tell by the time, or by the tokens that were cached, whether
    another has sent it, and what was said about it.
    """

    def __init__(self, engine: AnswerEngine, owner: str) -> None:
        self.description = engine.description
        self._engine, self._owner = engine, owner

    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        """As the engine does."""
        owned = id_of(self._owner, crop_sha256)
        return await self._engine.generate(prompt, crop, owned, max_tokens, constraint)

    def figures(self) -> EngineFigures:
        """Those of the engine, for all owners."""
        return self._engine.figures()

    async def close(self) -> None:
        """Leaves the engine to the others."""


def id_of(owner: str, crop_sha256: str) -> str:
    """The id by which vLLM knows an owner's crop."""
    return f"{owner} {crop_sha256}"


def _end() -> NoReturn:
    """End this process, and before it all that it started: what hangs or is stopped would not notice."""
    kill_below()
    os._exit(1)
