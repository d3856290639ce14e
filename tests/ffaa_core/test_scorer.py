"""The library door: one image's bytes to one verdict, with the real engine and the real MIDS."""

import asyncio
import math
from collections.abc import AsyncIterator

import pytest_asyncio
from skimage import data

from ffaa_core.bundle import Bundle
from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.mids import Judge
from ffaa_core.scorer import Scorer
from ffaa_core.settings import AnswerSettings, ScoringSettings
from ffaa_core.verdict import Status
from tests.images import png

ASTRONAUT = png(data.astronaut())
SETTINGS = ScoringSettings(answers=AnswerSettings(max_tokens=48))


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def scorer(engine: VllmEngine, demo_bundle: Bundle) -> AsyncIterator[Scorer]:
    yield Scorer(engine, Judge.load(demo_bundle), SETTINGS)


async def test_a_photograph_gets_a_verdict_with_reasons(scorer: Scorer) -> None:
    verdict = await scorer.score(ASTRONAUT)
    (face,) = verdict.faces
    assert verdict.status is face.status is Status.SCORED
    assert verdict.verdict is face.verdict is not None
    assert face.description
    assert face.reasoning
    assert len(face.answers) == 3


async def test_bytes_that_are_no_image_get_a_status(scorer: Scorer) -> None:
    assert (await scorer.score(b"no image")).status is Status.DECODE_FAILED


async def test_an_image_scored_beside_others_gets_the_verdict_it_gets_alone(scorer: Scorer) -> None:
    alone = await scorer.score(ASTRONAUT)
    others = [png(data.astronaut()[:, ::-1].copy()), b"no image", png(data.coffee()), ASTRONAUT]
    *_, beside = await asyncio.gather(*map(scorer.score, others))
    assert beside.verdict is alone.verdict
    assert beside.faces[0].chosen is alone.faces[0].chosen
    assert math.isclose(beside.faces[0].match_score or 0, alone.faces[0].match_score or 0, abs_tol=1e-2)
