"""Our engine answers what Transformers and PEFT answer on the same files."""

import asyncio

import pytest

from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.settings import AdapterMode, AnswerSettings, EngineSettings
from tests.ffaa_core.engine.llava_1_5 import as_llava_1_5
from tests.ffaa_core.engine.parity import (
    AT_LEAST,
    CROPS,
    PROMPTS,
    divergences,
    long_answers,
    long_answers_of,
)
from tests.ffaa_core.engine.reference import Reference
from tests.fixtures.engine import DemoModel, digest

pytestmark = pytest.mark.asyncio(loop_scope="session")

IDENTICAL = 0.95
TIE = 1e-3
"""Two logits this close are decided by the order in which float32 numbers are added up."""


async def test_free_answers_are_those_of_transformers_with_peft_token_for_token(
    engine: VllmEngine, reference: Reference
) -> None:
    ours = await long_answers(engine, CROPS)
    theirs = long_answers_of(reference, CROPS)
    assert min(map(len, ours)) >= AT_LEAST
    assert len(set(ours)) >= 0.9 * len(ours)
    diverged = divergences(reference, CROPS, ours, theirs)
    assert len(diverged) <= (1 - IDENTICAL) * len(ours)
    assert all(divergence.gap < TIE for divergence in diverged)


async def test_answers_end_where_those_of_transformers_end(engine: VllmEngine, reference: Reference) -> None:
    limit = AnswerSettings().max_tokens
    crops = CROPS[:6]
    for prompt in PROMPTS:
        ours = await asyncio.gather(*(engine.generate(prompt, c, digest(c), limit) for c in crops))
        theirs = reference.answers(prompt, crops, at_most=limit)
        for crop, generation, expected in zip(crops, ours, theirs, strict=True):
            diverged = reference.divergence(prompt, crop, generation.token_ids, expected)
            assert diverged is None or diverged.gap < TIE, diverged
            assert (generation.finish_reason, generation.token_ids[-1]) == ("stop", reference.end)


async def test_without_the_adapter_the_answers_are_others_and_the_gaps_say_so(
    engine: VllmEngine, reference: Reference
) -> None:
    crops = CROPS[:3]
    ours = await long_answers(engine, crops)
    with reference.without_adapter():
        diverged = divergences(reference, crops, ours, long_answers_of(reference, crops))
    assert len(diverged) == len(ours)
    assert all(divergence.gap > TIE for divergence in diverged)


async def test_a_live_adapter_on_a_llava_1_5_base_answers_like_the_same_model_told_as_mistral_and_merged(
    engine: VllmEngine, demo_mllm: DemoModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    vicuna = as_llava_1_5(demo_mllm, tmp_path_factory.mktemp("vicuna"))
    crops = CROPS[:8]
    settings = EngineSettings(adapter="live", dtype="float32")
    live = await VllmEngine.start(vicuna.mllm, vicuna.adapter, settings)
    try:
        ours = await long_answers(live, crops)
    finally:
        await live.close()
    reference, some = Reference(vicuna), crops[:2]
    diverged = divergences(reference, some, ours[: 3 * len(some)], long_answers_of(reference, some))
    diverged += divergences(reference, crops, ours, await long_answers(engine, crops))
    assert all(divergence.gap < TIE for divergence in diverged)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["live", "merged"])
async def test_a_model_split_among_two_workers_answers_as_transformers_does(
    adapter: AdapterMode, demo_mllm: DemoModel, reference: Reference
) -> None:
    settings = EngineSettings(adapter=adapter, dtype="float32", tensor_parallel_size=2)
    split = await VllmEngine.start(demo_mllm.mllm, demo_mllm.adapter, settings)
    try:
        ours = await long_answers(split, CROPS[:4])
    finally:
        await split.close()
    diverged = divergences(reference, CROPS[:4], ours, long_answers_of(reference, CROPS[:4]))
    assert all(divergence.gap < TIE for divergence in diverged)
