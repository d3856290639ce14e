"""The engine on real vLLM: what it answers, what its requests share, and what it proves at its start."""

import asyncio
from dataclasses import asdict
from itertools import permutations

import pytest

from ffaa_core.conversation import Turn
from ffaa_core.engine.base import Generation, Piece, Sampling
from ffaa_core.engine.prompt import PromptWriter
from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.errors import AdapterError, ContextLengthError, EngineError
from ffaa_core.questions import Question, conversation, wording
from ffaa_core.settings import EngineSettings
from tests.fixtures.engine import DemoModel, digest, drawn_crop

pytestmark = pytest.mark.asyncio(loop_scope="session")

IMAGE_TOKENS = 576
TOKENS = 48
PROMPTS = [conversation(wording(question)) for question in Question]


async def ask(engine: VllmEngine, seed: int, prompt: str = PROMPTS[0], **options: object) -> Generation:
    crop = drawn_crop(seed)
    arguments: dict[str, object] = {"crop_sha256": digest(crop), "max_tokens": TOKENS} | options
    return await engine.generate(prompt, crop, **arguments)  # type: ignore[arg-type]


async def ask_all(engine: VllmEngine, seeds: range) -> list[Generation]:
    return await asyncio.gather(*(ask(engine, seed, prompt) for seed in seeds for prompt in PROMPTS))


async def talk(engine: VllmEngine, number: int, *turns: Turn, **sampling: object) -> list[Piece]:
    crop = drawn_crop(number)
    options = Sampling(**({"max_tokens": TOKENS} | sampling))  # type: ignore[arg-type]
    return [piece async for piece in engine.converse(turns, crop, digest(crop), options)]


def words(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


ASKED = Turn(question=wording(Question.OPEN))
ANSWERED = Turn(question=wording(Question.OPEN), answer="Image description: A face.")
FURTHER = Turn(question="Why </s> do you say <image> so? <s>")


async def test_image_tokens_are_computed_once_for_the_three_questions_of_many_faces(
    engine: VllmEngine,
) -> None:
    generations = await ask_all(engine, range(100, 140))
    firsts, others = generations[::3], [g for i, g in enumerate(generations) if i % 3]
    assert all(g.cached_tokens < IMAGE_TOKENS // 2 for g in firsts)
    text_before_image = 64
    for generation in others:
        assert generation.cached_tokens - text_before_image >= 0.8 * IMAGE_TOKENS


async def test_faces_never_share_an_answer_in_whatever_order_they_are_asked_about(engine: VllmEngine) -> None:
    seeds = (200, 201, 202)
    alone = {seed: (await ask(engine, seed)).token_ids for seed in seeds}
    assert len(set(alone.values())) == len(seeds)
    for order in permutations(seeds):
        generations = await asyncio.gather(*(ask(engine, seed) for seed in order for _ in range(2)))
        for i, seed in enumerate(seed for seed in order for _ in range(2)):
            assert generations[i].token_ids == alone[seed]


async def test_two_crops_under_one_digest_would_share_an_answer(engine: VllmEngine) -> None:
    """That is why the digest is made of the pixels, and shows that the test above can fail."""
    first = await ask(engine, 300)
    assert (await ask(engine, 301)).token_ids != first.token_ids
    shared = await ask(engine, 302, crop_sha256=digest(drawn_crop(300)))
    assert shared.token_ids == first.token_ids


async def test_a_constraint_holds_the_whole_text(engine: VllmEngine) -> None:
    generation = await ask(engine, 0, constraint="(?:yes|no), [0-9]{3}")
    assert generation.finish_reason == "stop"
    assert generation.text[:2] in ("ye", "no")
    assert generation.text[-3:].isdigit()


async def test_a_cut_generation_says_so(engine: VllmEngine) -> None:
    generation = await ask(engine, 0, max_tokens=3, constraint="[a-z ]{50,60}")
    assert (generation.finish_reason, generation.generated_tokens) == ("length", 3)


async def test_a_request_that_is_refused_leaves_the_others_alone(engine: VllmEngine) -> None:
    too_long = conversation("Why? " * 2000)
    refused, answered = await asyncio.gather(ask(engine, 0, too_long), ask(engine, 0), return_exceptions=True)
    assert isinstance(refused, EngineError)
    assert isinstance(answered, Generation)


async def test_figures_count_what_was_done(engine: VllmEngine) -> None:
    before = asdict(engine.figures())
    generations = await ask_all(engine, range(400, 402))
    done = {name: count - before[name] for name, count in asdict(engine.figures()).items()}
    assert done["requests"] == 6
    for name in ("prompt_tokens", "cached_tokens", "generated_tokens"):
        assert done[name] == sum(getattr(g, name) for g in generations)
    assert 0 < done["seconds"] < 60


async def test_what_is_said_piece_by_piece_is_what_would_be_said_at_once(engine: VllmEngine) -> None:
    generation = await ask(engine, 600)
    pieces = await talk(engine, 600, ASKED)
    assert words(pieces) == generation.text
    assert len(pieces) > TOKENS // 2
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    last = pieces[-1]
    assert (last.finish_reason, last.generated_tokens) == (
        generation.finish_reason,
        generation.generated_tokens,
    )
    assert last.prompt_tokens == generation.prompt_tokens


async def test_a_conversation_finds_the_image_tokens_of_the_questions_computed(engine: VllmEngine) -> None:
    await ask(engine, 601)
    pieces = await talk(engine, 601, ANSWERED, FURTHER)
    assert pieces[-1].cached_tokens >= IMAGE_TOKENS


async def test_a_conversation_has_one_image_whatever_is_written_in_it(
    engine: VllmEngine, demo_mllm: DemoModel
) -> None:
    writer = PromptWriter(demo_mllm.mllm)
    pieces = await talk(engine, 602, ANSWERED, FURTHER, max_tokens=1)
    assert pieces[-1].prompt_tokens == writer.prompt_tokens(writer.write([ANSWERED, FURTHER]))


async def test_a_conversation_is_sampled_as_it_is_asked_for(engine: VllmEngine) -> None:
    greedy = words(await talk(engine, 603, ANSWERED, FURTHER))
    drawn = [
        words(await talk(engine, 603, ANSWERED, FURTHER, temperature=1.0, seed=seed)) for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1]
    assert len({greedy, *drawn}) == 3
    first_word = greedy.split()[1]
    stopped = await talk(engine, 603, ANSWERED, FURTHER, stop=(first_word,))
    assert words(stopped) == greedy.partition(first_word)[0]
    assert stopped[-1].finish_reason == "stop"


async def test_a_conversation_that_nobody_listens_to_is_aborted_in_vllm(
    engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm, aborted = engine._llm, []
    assert llm is not None
    abort = llm.abort

    async def noted(request_id: str, *args: object, **options: object) -> None:
        aborted.append(request_id)
        await abort(request_id, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(llm, "abort", noted)
    crop, before = drawn_crop(604), engine.figures().requests
    pieces = engine.converse((ANSWERED, FURTHER), crop, digest(crop), Sampling(max_tokens=1200))
    await anext(pieces)
    assert llm.output_processor.has_unfinished_requests()
    await pieces.aclose()
    assert len(aborted) == 1
    assert not llm.output_processor.has_unfinished_requests()
    assert engine.figures().requests == before


async def test_a_conversation_that_does_not_fit_is_refused_before_anything_is_generated(
    engine: VllmEngine,
) -> None:
    before = engine.figures()
    with pytest.raises(ContextLengthError):
        await talk(engine, 605, ANSWERED, FURTHER, max_tokens=2000)
    assert engine.figures().requests == before.requests


async def test_an_adapter_that_fits_and_changes_no_answer_is_refused(
    demo_mllm: DemoModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from safetensors.torch import load_file, save_file

    powerless = tmp_path_factory.mktemp("powerless")
    (powerless / "adapter_config.json").write_bytes((demo_mllm.adapter / "adapter_config.json").read_bytes())
    weights = load_file(demo_mllm.adapter / "adapter_model.safetensors")
    save_file(
        {name: tensor * 1e-12 for name, tensor in weights.items()}, powerless / "adapter_model.safetensors"
    )
    with pytest.raises(AdapterError, match="changes no answer"):
        await VllmEngine.start(demo_mllm.mllm, powerless, EngineSettings(adapter="merged"))
