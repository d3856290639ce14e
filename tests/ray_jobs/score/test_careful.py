"""One face at a time: noted before it is asked about, alone in the engine, refused once given up."""

import asyncio
import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from ffaa_core.engine.base import Crop, Generation
from ffaa_core.errors import EngineDeadError, EngineError
from ray_jobs.score.careful import CarefulEngine, CarefulJudge, WholeRoom
from tests.ray_jobs.score.scripted import ScriptedEngine, ScriptedJudge

CROP = np.zeros((336, 336, 3), np.uint8)


class ListeningEngine(ScriptedEngine):
    """Writes down what reaches it."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        self.log.append(f"asked {prompt} {crop_sha256}")
        await asyncio.sleep(0.01)
        return await super().generate(prompt, crop, crop_sha256, max_tokens, constraint)


async def test_a_face_is_noted_before_any_of_its_questions_reaches_the_engine() -> None:
    log: list[str] = []

    async def note(face: str) -> None:
        await asyncio.sleep(0.02)
        log.append(f"noted {face}")

    engine = CarefulEngine(ListeningEngine(log), frozenset(), note)
    for face in ("a", "b"):
        await asyncio.gather(*(engine.generate(question, CROP, face, 10) for question in "123"))
    assert log == [
        *["noted a", "asked 1 a", "asked 2 a", "asked 3 a"],
        *["noted b", "asked 1 b", "asked 2 b", "asked 3 b"],
    ]


async def test_a_face_given_up_is_refused_and_never_reaches_the_engine() -> None:
    log: list[str] = []

    async def note(face: str) -> None:
        log.append(f"noted {face}")

    engine = CarefulEngine(ListeningEngine(log), frozenset({"bad"}), note)
    with pytest.raises(EngineError, match="the engine died or hung on it twice"):
        await engine.generate("1", CROP, "bad", 10)
    assert log == []


async def test_whoever_has_the_whole_room_is_alone_in_it() -> None:
    room, turn = asyncio.Semaphore(3), asyncio.Lock()
    inside: set[int] = set()
    seen: list[tuple[str, int]] = []

    async def left() -> None:
        assert room.locked()
        seen.append(("left", len(inside)))

    async def enter(number: int, *, alone: bool) -> None:
        async with WholeRoom(room, 3, turn, left) if alone else room:
            inside.add(number)
            seen.append(("alone" if alone else "shared", len(inside)))
            await asyncio.sleep(0.005)
            inside.remove(number)

    await asyncio.wait_for(asyncio.gather(*(enter(n, alone=n % 3 == 0) for n in range(30))), 5)
    assert len(seen) == 40
    assert {count for kind, count in seen if kind == "alone"} == {1}
    assert {count for kind, count in seen if kind == "left"} == {0}
    assert max(count for kind, count in seen if kind == "shared") > 1


async def test_where_the_engine_died_no_other_face_has_its_turn() -> None:
    room, turn = asyncio.Semaphore(3), asyncio.Lock()
    left: list[str] = []

    async def enter(face: str) -> None:
        async with WholeRoom(room, 3, turn, lambda: asyncio.sleep(0, left.append(face))):
            if face == "deadly":
                raise EngineDeadError("killed by this face")

    others = [asyncio.ensure_future(enter(face)) for face in ("first", "deadly", "next", "last")]
    done, waiting = await asyncio.wait(others, timeout=0.1)
    assert left == ["first"]
    assert (len(done), len(waiting)) == (2, 2)
    with pytest.raises(EngineDeadError):
        await others[1]
    for other in waiting:
        other.cancel()


def test_a_judge_notes_each_face_and_fails_those_given_up() -> None:
    crops = [np.full((336, 336, 3), value, np.uint8) for value in range(3)]
    digests = [hashlib.sha256(crop.tobytes()).hexdigest() for crop in crops]
    answers = [[f"A face, {digest[:8]}."] * 3 for digest in digests]
    noted: list[str] = []
    batches: list[int] = []

    class CountingJudge(ScriptedJudge):
        def logits(self, crops: Sequence[Crop], masked_answers: Sequence[Sequence[str]]) -> list:
            batches.append(len(crops))
            return super().logits(crops, masked_answers)

    judge = CarefulJudge(CountingJudge(), frozenset({digests[1]}), noted.append)
    logits = judge.logits(crops, answers)
    assert [of_face is None for of_face in logits] == [False, True, False]
    assert noted == [digests[0], digests[2]]
    assert batches == [1, 1]
