"""The engine on real vLLM: what it answers, what its requests share, and what it proves at its start."""

import asyncio
from dataclasses import asdict
from itertools import permutations

import pytest

from ffaa_core.engine.base import Generation
from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.errors import AdapterError, EngineError
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
