"""Counting one shard's requests on an engine that serves several."""

import asyncio

import numpy as np

from ray_jobs.score.answer import Meter
from tests.ray_jobs.score.scripted import ScriptedEngine

CROP = np.zeros((336, 336, 3), np.uint8)


async def test_meters_on_one_engine_count_their_own_requests_only() -> None:
    engine = ScriptedEngine()
    first, second = Meter(engine, lambda: None), Meter(engine, lambda: None)
    await asyncio.gather(
        *(first.generate("p", CROP, "a", 10) for _ in range(3)), second.generate("p", CROP, "b", 10)
    )
    assert (first.figures().requests, second.figures().requests) == (3, 1)
    assert (first.figures().prompt_tokens, first.figures().generated_tokens) == (1800, 120)


async def test_seconds_run_from_the_meters_making_to_its_last_request() -> None:
    meter = Meter(ScriptedEngine(), lambda: None)
    await asyncio.sleep(0.05)
    await meter.generate("p", CROP, "a", 10)
    await meter.generate("p", CROP, "a", 10)
    seconds = meter.figures().seconds
    assert 0.05 <= seconds < 5
    await asyncio.sleep(0.02)
    assert meter.figures().seconds == seconds
