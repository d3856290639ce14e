"""Our engine answers what Transformers and PEFT answer on the same files."""

import asyncio
from collections.abc import Iterator

import pytest
import torch

from ffaa_core.engine.base import Crop
from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.questions import Question, conversation, wording
from ffaa_core.settings import AnswerSettings, EngineSettings
from tests.ffaa_core.engine.llava_1_5 import as_llava_1_5
from tests.ffaa_core.engine.reference import Divergence, Reference, Tokens
from tests.fixtures.engine import DemoModel, ask_at_length, digest, drawn_crop

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROMPTS = [conversation(wording(question)) for question in Question]
CROPS = [drawn_crop(seed) for seed in range(1000, 1024)]
AT_LEAST, AT_MOST = 64, 96
IDENTICAL = 0.95
TIE = 1e-3
"""Two logits this close are decided by the order in which float32 numbers are added up."""


@pytest.fixture(scope="module")
def reference(demo_mllm: DemoModel) -> Iterator[Reference]:
    """With one thread: many are slower on so small a model when other processes want the cores too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Reference(demo_mllm)
    torch.set_num_threads(threads)


async def long_answers(engine: VllmEngine, crops: list[Crop]) -> list[Tokens]:
    """The answers to the three questions about each crop, of `AT_LEAST` tokens."""
    asked = [ask_at_length(engine, prompt, crop, AT_LEAST, AT_MOST) for crop in crops for prompt in PROMPTS]
    return [tuple(output.outputs[0].token_ids) for output in await asyncio.gather(*asked)]


def long_answers_of(reference: Reference, crops: list[Crop]) -> list[Tokens]:
    by_prompt = [reference.answers(p, crops, at_least=AT_LEAST, at_most=AT_MOST) for p in PROMPTS]
    return [answer for of_crop in zip(*by_prompt, strict=True) for answer in of_crop]


def divergences(
    reference: Reference, crops: list[Crop], ours: list[Tokens], theirs: list[Tokens]
) -> list[Divergence]:
    """Those of all answers, which are printed."""
    asked = [(crop, prompt) for crop in crops for prompt in PROMPTS]
    found = []
    for i, (crop, prompt) in enumerate(asked):
        if divergence := reference.divergence(prompt, crop, ours[i], theirs[i]):
            print(f"crop {i // 3}, {tuple(Question)[i % 3]}: {divergence}")
            found.append(divergence)
    print(f"{len(asked) - len(found)} of {len(asked)} answers are identical")
    return found


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
        assert [g.token_ids for g in ours] == reference.answers(prompt, crops, at_most=limit)
        assert {g.finish_reason for g in ours} == {"stop"}
        assert {g.token_ids[-1] for g in ours} == {reference.end}


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
    reference = Reference(vicuna)
    assert not divergences(reference, crops[:2], ours[:6], long_answers_of(reference, crops[:2]))
    assert ours == await long_answers(engine, crops)
