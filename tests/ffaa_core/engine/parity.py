"""Long answers of an engine and of its measure, and where the first leave the second."""

import asyncio

from ffaa_core.engine.base import Crop
from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.questions import Question, conversation, wording
from tests.ffaa_core.engine.reference import Divergence, Reference, Tokens
from tests.fixtures.engine import ask_at_length, drawn_crop

PROMPTS = [conversation(wording(question)) for question in Question]
CROPS = [drawn_crop(seed) for seed in range(1000, 1024)]
AT_LEAST, AT_MOST = 64, 96


async def long_answers(engine: VllmEngine, crops: list[Crop]) -> list[Tokens]:
    """The answers to the three questions about each crop, of at least `AT_LEAST` tokens."""
    asked = [ask_at_length(engine, prompt, crop, AT_LEAST, AT_MOST) for crop in crops for prompt in PROMPTS]
    return [tuple(output.outputs[0].token_ids) for output in await asyncio.gather(*asked)]


def long_answers_of(reference: Reference, crops: list[Crop]) -> list[Tokens]:
    """The reference's, in the same order."""
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
