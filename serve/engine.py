"""The answer engine as a deployment: vLLM, asked about the faces of several images at once."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Protocol

from ffaa_core.conversation import Turn
from ffaa_core.engine.base import ConversingEngine, Crop, Piece, Sampling
from ffaa_core.errors import EngineDeadError
from ffaa_core.pipeline import PendingImage, answer
from serve.release import Release


class ServedEngine(ConversingEngine, Protocol):
    """An engine that can say whether it lives: `ffaa_core.engine.vllm_engine.VllmEngine`."""

    async def check(self) -> None:
        """Raise EngineDeadError if it is gone."""
        ...


class Engine:
    """Holds one engine. When that dies this process exits, and Ray Serve starts another."""

    async def __init__(self, release: Release) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        settings = release.config.engine
        self._answers = release.config.answers
        self._engine = await self.start_engine(release)
        self._room = asyncio.Semaphore(settings.max_concurrent_faces)
        self._under_way = 0

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
            os._exit(1)
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
            os._exit(1)
        finally:
            self._under_way -= 1

    async def figures(self) -> dict[str, Any]:
        """What was done since the start, as `EngineFigures`, and how many `images` are under way."""
        return asdict(self._engine.figures()) | {"images": self._under_way}

    async def check_health(self) -> None:
        """Called by Ray Serve every few seconds: an engine that has died idle is noticed, too."""
        try:
            await self._engine.check()
        except EngineDeadError:
            os._exit(1)
