"""One image's bytes to one verdict, in this process: the library door."""

import asyncio
import os
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ffaa_core.examiner import Examiner
from ffaa_core.pipeline import answer, conclude
from ffaa_core.settings import EngineSettings, ScoringSettings
from ffaa_core.verdict import ImageVerdict

if TYPE_CHECKING:
    from ffaa_core.bundle import Bundle
    from ffaa_core.engine.base import AnswerEngine
    from ffaa_core.mids import Judge


EXAMINED_AT_ONCE = 4
"""Images decoded beside each other, each by a process of its own; an engine is slower than these."""


class Scorer:
    """Scores images with one bundle. Open it once, then score many, also at the same time.

        async with await Scorer.open(resolve_bundle(None)) as scorer:
            verdict = await scorer.score(Path("photo.jpg").read_bytes())

    The engine lives in the event loop that opened it.
    """

    def __init__(
        self,
        engine: "AnswerEngine",
        judge: "Judge",
        settings: ScoringSettings,
        max_concurrent_faces: int = EngineSettings.max_concurrent_faces,
    ) -> None:
        cores = len(os.sched_getaffinity(0))
        self.settings = settings
        self._examiner = Examiner(self.settings, processes=min(EXAMINED_AT_ONCE, cores))
        self._engine = engine
        self._judge = judge
        self._room = asyncio.Semaphore(max_concurrent_faces)
        self._judging = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        bundle: "Bundle",
        settings: ScoringSettings | None = None,
        engine_settings: EngineSettings | None = None,
    ) -> Self:
        """Load the bundle's models; takes tens of seconds.

        Raises:
            BundleError: the bundle is incomplete, or its adapter changes nothing.
        """
        from ffaa_core.engine.vllm_engine import VllmEngine
        from ffaa_core.mids import Judge

        engine_settings = engine_settings or EngineSettings()
        judge = await asyncio.to_thread(Judge.load, bundle)
        engine = await VllmEngine.start(bundle.mllm, bundle.adapter, engine_settings)
        return cls(engine, judge, settings or ScoringSettings(), engine_settings.max_concurrent_faces)

    async def score(self, data: bytes) -> ImageVerdict:
        """Score one image file. Whatever is wrong with the bytes becomes the verdict's status.

        Raises:
            EngineDeadError: the engine is gone; open a new scorer.
            ExaminerError: no process can be started to decode images in.
        """
        pending = await asyncio.to_thread(self._examiner.examine, data)
        pending = await answer(pending, self._engine, self.settings.answers, self._room)
        async with self._judging:
            (verdict,) = await asyncio.to_thread(conclude, [pending], self._judge)
        return verdict

    async def close(self) -> None:
        """Stop the engine and every process."""
        await asyncio.to_thread(self._examiner.close)
        await self._engine.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
