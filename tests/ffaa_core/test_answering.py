"""The two-pass rule, with an engine that fails on demand and with the real one."""

import asyncio
from collections import Counter

import pytest

from ffaa_core.answering import FAILED, ask
from ffaa_core.answers import Answer, Determination
from ffaa_core.engine.base import AnswerEngine, Crop, EngineFigures, Generation
from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.errors import EngineDeadError, EngineError
from ffaa_core.grammar import answer_regex, budget
from ffaa_core.questions import OPEN_QUESTIONS, Question
from ffaa_core.settings import AnswerSettings
from tests.fixtures.engine import digest, drawn_crop

GOOD = """Image description: A.
Forgery reasoning: B.
Analysis result: Real
Probability: 0.90
Forgery type: N/A"""
BAD = "I cannot say."
CUT = "Image description: A. Image description: A."

Step = tuple[str, str] | Exception


class ScriptedEngine(AnswerEngine):
    """Gives the open question the answers of a script, one after the other, and the others a good one."""

    def __init__(self, *script: Step) -> None:
        self._script = list(script)
        self.calls: list[tuple[str, int, str | None]] = []

    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        step: Step = (GOOD, "stop")
        if OPEN_QUESTIONS[0] in prompt:
            self.calls.append((prompt, max_tokens, constraint))
            step = self._script.pop(0)
        if isinstance(step, Exception):
            raise step
        text, reason = step
        return Generation(
            text=text,
            finish_reason=reason,
            prompt_tokens=1,
            cached_tokens=0,
            generated_tokens=1,
            token_ids=(1,),
        )

    def figures(self) -> EngineFigures:
        return EngineFigures()

    async def close(self) -> None:
        pass


async def open_answer(engine: AnswerEngine, max_tokens: int = 512) -> Answer:
    crop = drawn_crop(0)
    answers = await ask(engine, crop, digest(crop), AnswerSettings(max_tokens=max_tokens))
    assert [answer.question for answer in answers] == list(Question)
    assert all(answer.fields for answer in answers[1:])
    return answers[0]


async def test_a_well_formed_answer_is_taken_as_published() -> None:
    engine = ScriptedEngine((GOOD, "stop"))
    answer = await open_answer(engine, max_tokens=300)
    assert [call[1:] for call in engine.calls] == [(300, None)]
    assert answer.fields is not None
    assert (answer.text, answer.attempts, answer.constrained, answer.truncated) == (GOOD, 1, False, False)


@pytest.mark.parametrize("first", [(BAD, "stop"), (CUT, "length"), (GOOD, "length")])
async def test_a_malformed_or_cut_answer_is_asked_once_more_under_the_grammar(first: Step) -> None:
    engine = ScriptedEngine(first, (GOOD, "stop"))
    answer = await open_answer(engine)
    tokens = budget(512)
    assert [call[1:] for call in engine.calls] == [(512, None), (tokens, answer_regex(tokens))]
    assert engine.calls[0][0] == engine.calls[1][0]
    assert answer.fields is not None
    assert answer.fields.result is Determination.REAL
    assert (answer.attempts, answer.constrained, answer.truncated) == (2, True, False)


@pytest.mark.parametrize(("second", "truncated"), [((BAD, "stop"), False), ((CUT, "length"), True)])
async def test_an_answer_that_stays_bad_keeps_its_raw_text(second: tuple[str, str], truncated: bool) -> None:
    answer = await open_answer(ScriptedEngine((BAD, "stop"), second))
    assert answer.fields is None
    assert (answer.text, answer.finish_reason) == second
    assert (answer.attempts, answer.constrained, answer.truncated) == (2, True, truncated)


async def test_a_refused_request_spoils_only_its_own_answer() -> None:
    answer = await open_answer(ScriptedEngine(EngineError("no")))
    assert (answer.fields, answer.text, answer.finish_reason, answer.attempts) == (
        None,
        "",
        f"{FAILED}: no",
        1,
    )


async def test_a_refused_second_request_leaves_the_first_text() -> None:
    answer = await open_answer(ScriptedEngine((BAD, "stop"), EngineError("no")))
    assert (answer.fields, answer.text, answer.finish_reason, answer.attempts) == (
        None,
        BAD,
        f"{FAILED}: no",
        2,
    )


@pytest.mark.parametrize("script", [(EngineDeadError("x"),), ((BAD, "stop"), EngineDeadError("x"))])
async def test_a_dead_engine_is_no_answer(script: tuple[Step, ...]) -> None:
    with pytest.raises(EngineDeadError):
        await open_answer(ScriptedEngine(*script))


@pytest.mark.asyncio(loop_scope="session")
async def test_the_demo_models_answers_become_well_formed_end_by_themselves_and_differ(
    engine: VllmEngine,
) -> None:
    before = engine.figures()
    crops = [drawn_crop(seed) for seed in range(500, 530)]
    faces = await asyncio.gather(*(ask(engine, crop, digest(crop), AnswerSettings()) for crop in crops))
    answers = [answer for face in faces for answer in face]
    assert all(answer.fields and answer.finish_reason == "stop" for answer in answers)
    assert len({answer.text for answer in answers}) > 70
    results = Counter(answer.fields.result for answer in answers if answer.fields)
    assert min(results.values()) >= 18
    assert len({tuple(a.fields.result for a in face if a.fields) for face in faces}) >= 4
    after = engine.figures()
    generated = after.generated_tokens - before.generated_tokens
    assert generated / (after.requests - before.requests) < 100
