"""The answer engine as a deployment: cancelled with its caller, and gone when its engine is."""

import asyncio
import subprocess
import sys

import numpy as np
import psutil
import pytest

from ffaa_core.conversation import Turn
from ffaa_core.engine.base import Sampling
from ffaa_core.faces import Face
from ffaa_core.pipeline import PendingFace, PendingImage
from ffaa_core.questions import Question
from ffaa_core.verdict import Box, ImageVerdict, Status
from serve.config import ServeConfig, ServiceSettings
from serve.engine import Engine, ServedEngine
from serve.release import Release
from tests.fixtures.processes import wait_until
from tests.serve.stand_ins import ScriptedEngine


class Scripted(Engine):
    async def start_engine(self, release: Release) -> ServedEngine:
        self.scripted = ScriptedEngine()
        return self.scripted


def pending(n_faces: int) -> PendingImage:
    face = Face(
        box=Box(left=0, top=0, right=9, bottom=9),
        detection_score=None,
        crop=np.zeros((336, 336, 3), np.uint8),
        crop_sha256="0" * 64,
    )
    image = ImageVerdict(image_sha256=None, image_bytes=None, status=Status.CRASHED)
    return PendingImage(image=image, faces=(PendingFace(face=face),) * n_faces)


async def started(**service: float) -> Scripted:
    config = ServeConfig(service=ServiceSettings(**service))  # type: ignore[arg-type]
    release = Release(config=config, bundle="/none", fingerprint="0" * 16, warning=None)
    engine = Scripted.__new__(Scripted)
    await engine.__init__(release)  # type: ignore[misc]  # as Ray Serve does
    return engine


async def test_every_face_is_asked_about() -> None:
    engine = await started()
    answers = await engine.answer(pending(2), "owner")
    assert [[answer.question for answer in of_face] for of_face in answers] == [list(Question)] * 2
    assert engine.scripted.begun == 6


async def test_what_is_computed_of_a_crop_is_reused_for_its_owner_only() -> None:
    engine = await started()
    crop, sha256 = pending(1).faces[0].face.crop, "0" * 64
    for owner in ("owner", "owner", "another"):
        await engine.answer(pending(1), owner)
    ids = list(dict.fromkeys(engine.scripted.ids))
    assert len(engine.scripted.ids) == 9
    assert len(ids) == 2
    for owner in ("owner", "another"):
        await anext(engine.converse((Turn(question="Why?"),), crop, sha256, Sampling(), owner))
    assert [asked[1] for asked in engine.scripted.conversed] == ids


async def test_what_nobody_cancels_ends_at_the_deadline() -> None:
    engine = await started(deadline_seconds=0.2)
    engine.scripted.gate = asyncio.Event()
    with pytest.raises(TimeoutError):
        await engine.answer(pending(1), "owner")
    assert engine.scripted.cancelled == 3
    assert (await engine.figures())["images"] == 0


async def test_to_cancel_a_call_cancels_its_requests() -> None:
    engine = await started()
    engine.scripted.gate = asyncio.Event()
    call = asyncio.ensure_future(engine.answer(pending(2), "owner"))
    while engine.scripted.begun < 6:
        await asyncio.sleep(0)
    assert (await engine.figures())["images"] == 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert engine.scripted.cancelled == 6
    assert (await engine.figures())["images"] == 0


DEAD = """
import asyncio, signal, subprocess, sys
import serve.engine
from ffaa_core.errors import EngineDeadError
from tests.serve.test_engine import pending, started

async def dead(*_):
    raise EngineDeadError("gone")

async def main():
    engine = await started()
    child = subprocess.Popen(["sleep", "600"])
    print(child.pid, flush=True)
    child.send_signal(signal.SIGSTOP)
    if sys.argv[1] == "hangs":
        engine.scripted.check = asyncio.Event().wait
        engine._silence_s = serve.engine.PATIENCE_S = 0.01
    else:
        engine.scripted.generate = engine.scripted.check = dead
    if sys.argv[1] == "answers":
        await engine.answer(pending(1), "owner")
    for _ in range(3):
        await engine.check_health()

try:
    asyncio.run(main())
finally:
    print("still there")
"""


@pytest.mark.parametrize("when", ["answers", "is asked", "hangs"])
def test_the_process_ends_with_its_engine_and_with_what_it_started(when: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEAD, when], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1, done.stderr
    child, *more = done.stdout.split()
    assert not more, done.stdout
    wait_until(lambda: not is_alive(int(child)), 60)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_an_engine_that_answers_late_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.engine.PATIENCE_S", 0.01)
    engine = await started()
    says = asyncio.Event()
    monkeypatch.setattr(engine.scripted, "check", says.wait)
    for _ in range(3):
        await engine.check_health()
    says.set()
    await engine.check_health()
    assert engine._check is None


async def test_a_conversation_that_is_closed_gives_its_room_back() -> None:
    engine = await started()
    crop = pending(1).faces[0].face.crop
    pieces = engine.converse((Turn(question="Why?"),), crop, "0" * 64, Sampling(), "owner")
    assert (await anext(pieces)).text == engine.scripted.words[0]
    assert (await engine.figures())["images"] == 1
    await pieces.aclose()
    assert engine.scripted.cancelled == 1
    assert (await engine.figures())["images"] == 0
    assert not engine._room.locked()
