"""One face at a time, noted before its turn: what a shard gets whose process died twice."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence

from ffaa_core.engine.base import AnswerEngine, Crop, EngineFigures, Generation
from ffaa_core.errors import EngineDeadError, EngineError
from ffaa_core.pipeline import FaceJudge, Logits


class WholeRoom:
    """Every place of a semaphore at once, so that nothing else is in flight; several take turns.

    `left` is awaited before the room is free again. Where the engine died it never is: the next face would be
    noted as in flight at a death that was none of its own.
    """

    def __init__(
        self,
        room: asyncio.Semaphore,
        places: int,
        turn: asyncio.Lock,
        left: Callable[[], Awaitable[None]],
    ) -> None:
        self._room, self._places, self._turn, self._left = room, places, turn, left

    async def __aenter__(self) -> None:
        async with self._turn:
            for _ in range(self._places):
                await self._room.acquire()

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and issubclass(kind, EngineDeadError):
            return
        await self._left()
        for _ in range(self._places):
            self._room.release()


class CarefulEngine:
    """An engine that notes each face before it is asked about, and refuses those given up."""

    def __init__(
        self, engine: AnswerEngine, given_up: frozenset[str], note: Callable[[str], Awaitable[None]]
    ) -> None:
        self.description = engine.description
        self._engine, self._given_up, self._note = engine, given_up, note
        self._face = ""
        self._noted: asyncio.Future[None] | None = None

    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        """As the engine does.

        Raises:
            EngineError: the face was given up.
        """
        if crop_sha256 in self._given_up:
            raise EngineError("the engine died or hung on it twice")
        if self._noted is None or self._face != crop_sha256:
            self._face, self._noted = crop_sha256, asyncio.ensure_future(self._note(crop_sha256))
        await self._noted
        return await self._engine.generate(prompt, crop, crop_sha256, max_tokens, constraint)

    def figures(self) -> EngineFigures:
        """As the engine has."""
        return self._engine.figures()

    async def close(self) -> None:
        """Leaves the engine to its owner."""


class CarefulJudge:
    """A judge that notes each face before its turn, and fails those given up."""

    def __init__(self, judge: FaceJudge, given_up: frozenset[str], note: Callable[[str], None]) -> None:
        self._judge, self._given_up, self._note = judge, given_up, note

    def logits(self, crops: Sequence[Crop], masked_answers: Sequence[Sequence[str]]) -> list[Logits | None]:
        """As the judge does, one face after the other."""
        return [self._of_face(crop, masked) for crop, masked in zip(crops, masked_answers, strict=True)]

    def _of_face(self, crop: Crop, masked: Sequence[str]) -> Logits | None:
        face = hashlib.sha256(crop.tobytes()).hexdigest()
        if face in self._given_up:
            return None
        self._note(face)
        (logits,) = self._judge.logits([crop], [masked])
        return logits
