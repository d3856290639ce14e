"""The answer engine as a deployment: vLLM, asked about the faces of several images at once."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, NoReturn, Protocol

from ffaa_core.conversation import Turn
from ffaa_core.engine.base import ConversingEngine, Crop, Piece, Sampling
from ffaa_core.errors import EngineDeadError
from ffaa_core.pipeline import PendingImage, answer
from ffaa_core.reaper import kill_below
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
        settings = release.config.engine
        self._answers = release.config.answers
        self._metrics = EngineMetrics()  # also of one that does not get to the end of its loading
        self._engine = await self.start_engine(release)
        self._room = asyncio.Semaphore(settings.max_concurrent_faces)
        self._under_way = 0
        self._silence_s = max(LEAST_SILENCE_S, release.config.service.deadline_seconds / 2)
        self._asked_at = 0.0
        self._check: asyncio.Future[None] | None = None

    async def start_engine(self, release: Release) -> ServedEngine:
        """Load the bundle's multimodal LLM; other engines override this."""
        from ffaa_core.engine.vllm_engine import VllmEngine

        bundle = await asyncio.to_thread(release.open_bundle, "mllm", "adapter")
        return await VllmEngine.start(bundle.mllm, bundle.adapter, release.config.engine)

    async def answer(self, pending: PendingImage) -> PendingImage:
        """Ask the three questions of every face. To cancel the call cancels what vLLM does for it."""
        self._under_way += 1
        try:
            return await answer(pending, self._engine, self._answers, self._room)
        except EngineDeadError:
            _end()
        finally:
            self._under_way -= 1

    async def converse(
        self, turns: Sequence[Turn], crop: Crop, crop_sha256: str, sampling: Sampling
    ) -> AsyncGenerator[Piece]:
        """Go on with a conversation, as `ConversingEngine.converse`; it takes the room of a face."""
        self._under_way += 1
        try:
            async with (
                self._room,
                aclosing(self._engine.converse(turns, crop, crop_sha256, sampling)) as pieces,
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


def _end() -> NoReturn:
    """End this process, and before it all that it started: what hangs or is stopped would not notice."""
    kill_below()
    os._exit(1)
