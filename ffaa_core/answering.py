"""Puts the three questions about a face to the answer engine, and asks again where an answer is malformed."""

import asyncio
from dataclasses import replace

from ffaa_core.answers import Answer, Fields
from ffaa_core.engine.base import AnswerEngine, Crop, Generation
from ffaa_core.errors import EngineDeadError, EngineError
from ffaa_core.grammar import answer_regex, budget
from ffaa_core.questions import Question, conversation, wording
from ffaa_core.settings import AnswerSettings

CUT = "length"
"""The finish reason of a generation that the token limit ended."""

FAILED = "error"
"""Begins the finish reason of an answer to a request that the engine refused; its reason follows."""


async def ask(
    engine: AnswerEngine, crop: Crop, crop_sha256: str, settings: AnswerSettings
) -> tuple[Answer, Answer, Answer]:
    """Ask the three questions about one face, together, so that its image tokens are computed once.

    Each is asked as published first: greedily and without constraint. Only when that answer is malformed or
    cut is the question asked once more, under the grammar. An answer that is still malformed, or that the
    engine failed to give, has `fields` None and keeps its raw text.

    Args:
        crop: (336, 336, 3) uint8, RGB.
        crop_sha256: digest of the crop's pixels.

    Returns:
        The answers in the order of `Question`.

    Raises:
        EngineDeadError: the engine is gone.
    """
    first, second, third = await asyncio.gather(
        *(_ask_one(engine, crop, crop_sha256, question, settings) for question in Question)
    )
    return first, second, third


async def _ask_one(
    engine: AnswerEngine, crop: Crop, crop_sha256: str, question: Question, settings: AnswerSettings
) -> Answer:
    prompt = conversation(wording(question, settings.open_question))
    answer = Answer(question=question, text="", fields=None, finish_reason=FAILED)
    try:
        generation = await engine.generate(prompt, crop, crop_sha256, settings.max_tokens, None)
        answer = _read(question, generation)
        if answer.fields is not None and not answer.truncated:
            return answer
        answer = replace(answer, attempts=2, constrained=True)
        tokens = budget(settings.max_tokens)
        generation = await engine.generate(prompt, crop, crop_sha256, tokens, answer_regex(tokens))
    except EngineDeadError:
        raise
    except EngineError as error:
        return replace(answer, fields=None, finish_reason=f"{FAILED}: {error}")
    return replace(_read(question, generation), attempts=2, constrained=True)


def _read(question: Question, generation: Generation) -> Answer:
    truncated = generation.finish_reason == CUT
    return Answer(
        question=question,
        text=generation.text,
        fields=None if truncated else Fields.parse(generation.text),
        finish_reason=generation.finish_reason,
        truncated=truncated,
    )
