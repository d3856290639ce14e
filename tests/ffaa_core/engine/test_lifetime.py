"""How an engine ends: closed, killed, or with the process that owns it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ffaa_core.engine.base import Generation
from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.errors import EngineDeadError
from ffaa_core.questions import conversation
from ffaa_core.settings import EngineSettings
from tests.fixtures.engine import DemoModel, digest, drawn_crop

OWNER = """
import asyncio, sys, time
from pathlib import Path
from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.settings import EngineSettings

async def main():
    engine = await VllmEngine.start(Path(sys.argv[1]), Path(sys.argv[2]), EngineSettings())
    print("started", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""
SECONDS_TO_DIE = 20
SECONDS_TO_IMPORT = 60
"""A process that is killed while the engine starts leaves children that first have to import vLLM."""


def start_generating(engine: VllmEngine) -> list[asyncio.Task[Generation]]:
    """Requests that take long."""
    crop = drawn_crop(0)
    prompts = (conversation(f"Spell out the number {i}.") for i in range(30))
    return [
        asyncio.create_task(engine.generate(prompt, crop, digest(crop), 1400, "[a-z]{1300,}"))
        for prompt in prompts
    ]


async def outcomes(tasks: list[asyncio.Task[Generation]]) -> set[type]:
    """Types of what the tasks end with, which they must within the time to die."""
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), SECONDS_TO_DIE)
    return {type(result) for result in results}


def survivors(processes: Iterable[psutil.Process], seconds: int = SECONDS_TO_DIE) -> list[psutil.Process]:
    """Those that still run after some time, which are then killed; our own resource tracker may run on."""
    deadline = time.monotonic() + seconds
    while (alive := [p for p in processes if _runs(p)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in alive:
        process.kill()
    return alive


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        own_tracker = process.ppid() == os.getpid() and "resource_tracker" in " ".join(process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and not own_tracker
    return False


async def test_requests_in_flight_and_later_ones_fail_at_once_when_the_engines_process_dies(
    demo_mllm: DemoModel,
) -> None:
    before = set(psutil.Process().children(recursive=True))
    engine = await VllmEngine.start(demo_mllm.mllm, demo_mllm.adapter, EngineSettings())
    started = set(psutil.Process().children(recursive=True)) - before
    try:
        tasks = start_generating(engine)
        await asyncio.sleep(0.5)
        next(process for process in started if "EngineCore" in process.name()).kill()
        assert await outcomes(tasks) == {EngineDeadError}
        assert await outcomes(start_generating(engine)) == {EngineDeadError}
    finally:
        await engine.close()


async def test_closing_ends_requests_in_flight_and_every_process(demo_mllm: DemoModel) -> None:
    before = set(psutil.Process().children(recursive=True))
    engine = await VllmEngine.start(demo_mllm.mllm, None, EngineSettings())
    started = set(psutil.Process().children(recursive=True)) - before
    assert started
    tasks = start_generating(engine)
    await asyncio.sleep(0.5)
    await engine.close()
    assert await outcomes(tasks) == {EngineDeadError}
    assert await outcomes(start_generating(engine)) == {EngineDeadError}
    assert not survivors(started)
    await engine.close()


@pytest.mark.parametrize(
    ("wait_for", "seconds"),
    [("started", SECONDS_TO_DIE), ("first child", SECONDS_TO_IMPORT + SECONDS_TO_DIE)],
)
def test_no_process_outlives_an_owner_that_is_killed(
    wait_for: str, seconds: int, demo_mllm: DemoModel, tmp_path: Path
) -> None:
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    command = [sys.executable, str(script), str(demo_mllm.mllm), str(demo_mllm.adapter)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        process = psutil.Process(owner.pid)
        if wait_for == "started":
            assert owner.stdout is not None
            assert owner.stdout.readline() == "started\n"
        while not (children := process.children(recursive=True)):
            time.sleep(0.1)
        os.kill(owner.pid, signal.SIGKILL)
    assert not survivors(children, seconds)
