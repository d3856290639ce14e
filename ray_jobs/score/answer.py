"""Second stage: the engine answers the three questions of every face. Runs as a pool of GPU actors."""

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ffaa_core.engine.base import AnswerEngine, Crop, EngineFigures, Generation
from ffaa_core.environment import environment
from ffaa_core.errors import EngineDeadError
from ffaa_core.pipeline import answer
from ray_jobs.score.attempts import Attempt
from ray_jobs.score.blocks import ShardImage, from_block, to_block
from ray_jobs.score.careful import CarefulEngine, WholeRoom
from ray_jobs.score.job import Job
from ray_jobs.score.progress import Progress, begin, enter, failures_told, loading
from ray_jobs.score.pulse import Pulse

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.actor import ActorHandle

T = TypeVar("T")

TELL_EVERY_S = 0.5
"""How often a shard's counts are told: images without a face are answered by the thousand in a second."""
SHARDS_IN_FLIGHT = 3
"""Shards one engine works on at once, so that it never idles between two."""


class AnswerStage:
    """Holds one engine, and the event loop it lives in; several threads bring it shards."""

    def __init__(self, job: Job, progress: "ActorHandle[Progress]") -> None:
        self._job, self._progress = job, progress
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="engine").start()
        with failures_told(progress), loading(progress, "engine"):
            self._engine = self._run(self.start_engine(job))
        self._environment = environment() | self._engine.description
        self._room = asyncio.Semaphore(job.config.engine.max_concurrent_faces)
        self._turn = asyncio.Lock()
        self._pulse = Pulse(job.config.run.hang_seconds)

    async def start_engine(self, job: Job) -> AnswerEngine:
        """Load the bundle's multimodal LLM; other engines override this."""
        from ffaa_core.engine.vllm_engine import VllmEngine

        bundle = job.open_bundle("mllm", "adapter")
        return await VllmEngine.start(bundle.mllm, bundle.adapter, job.config.engine)

    def __call__(self, block: "pa.Table") -> "pa.Table":
        """Answer a shard. If the engine dies or hangs this process exits: Ray starts another and repeats the
        shard.

        A block without rows is a shard that was not begun since the run stops; this may give one, too.
        """
        if not block.num_rows:
            return block
        with failures_told(self._progress):
            shard, images = from_block(block)
            if not enter(self._progress, shard, "answer"):
                return block.slice(0, 0)
            attempt = begin(self._progress, "answer", shard)
        meter = Meter(self._engine, self._pulse.beat)
        try:
            with self._pulse.working():
                answered = self._run(self._answer(attempt, images, meter))
        except EngineDeadError:
            os._exit(1)
        work = asdict(meter.figures()) | {"environment": self._environment}
        enter(self._progress, shard, "answered")
        return to_block(shard, answered, work)

    async def _answer(
        self, attempt: Attempt, images: list[ShardImage], engine: AnswerEngine
    ) -> list[ShardImage]:
        counts = {"images answered": 0, "faces answered": 0}
        told_at = -math.inf
        room: AbstractAsyncContextManager[None] = self._room
        if attempt.careful:
            room = WholeRoom(
                self._room,
                self._job.config.engine.max_concurrent_faces,
                self._turn,
                lambda: self._progress.note.remote(attempt, None),
            )
            engine = CarefulEngine(
                engine, attempt.given_up, lambda face: self._progress.note.remote(attempt, face)
            )

        async def answer_image(image: ShardImage) -> ShardImage:
            pending = await answer(image.pending, engine, self._job.config.answers, room)
            counts["images answered"] += 1
            counts["faces answered"] += len(pending.faces)
            nonlocal told_at
            if counts["images answered"] == len(images) or time.monotonic() - told_at > TELL_EVERY_S:
                told_at = time.monotonic()
                for measure, count in counts.items():
                    self._progress.report.remote(attempt.shard, measure, count)
            return replace(image, pending=pending)

        answered = list(await asyncio.gather(*map(answer_image, images)))
        await self._progress.note.remote(attempt, None)
        return answered

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class Meter:
    """Counts one shard's requests on their way to an engine that serves several, and beats after each."""

    def __init__(self, engine: AnswerEngine, beat: Callable[[], None]) -> None:
        self.description = engine.description
        self._engine, self._beat = engine, beat
        self._figures = EngineFigures()
        self._started = time.monotonic()

    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        """As the engine does."""
        generation = await self._engine.generate(prompt, crop, crop_sha256, max_tokens, constraint)
        self._beat()
        self._figures += EngineFigures(
            requests=1,
            prompt_tokens=generation.prompt_tokens,
            cached_tokens=generation.cached_tokens,
            generated_tokens=generation.generated_tokens,
            seconds=time.monotonic() - self._started - self._figures.seconds,
        )
        return generation

    def figures(self) -> EngineFigures:
        """Tokens of this meter's requests, and the seconds from its making to the last of them."""
        return self._figures

    async def close(self) -> None:
        """Leaves the engine to its owner."""
