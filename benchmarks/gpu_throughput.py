"""Faces per second of the answer engine and of MIDS on a GPU, with random models of the published sizes.

An answer ends at a drawn length, in the mean at the 203 tokens of the published model: a random one never
ends by itself. Every rate is that of the middle half of the faces, so that neither start nor end counts. Bare
vLLM is the same engine asked past ours: about as many faces at once, and about all of them.

  python -m benchmarks.gpu_throughput --at-once 32 96 192 --json gpu.json
"""

import argparse
import asyncio
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, cycle, islice
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from benchmarks.published_size import published_judge, write_published_mllm
from ffaa_core.bundle.demo_text import sentences
from ffaa_core.engine.base import Crop, EngineFigures
from ffaa_core.engine.vllm_engine import VllmEngine, _image
from ffaa_core.environment import environment
from ffaa_core.mids import Judge
from ffaa_core.questions import Question, conversation, wording
from ffaa_core.settings import CROP_SIZE, AdapterMode, EngineSettings
from tests.fixtures.engine import digest

PROMPTS = [conversation(wording(question)) for question in Question]
SHORTEST, LONGEST = 103, 303
"""Of answers, in tokens."""
MASKED_CHARACTERS = 430
"""Of a masked answer: about what 203 tokens are without their last three fields."""
JUDGED_AT_ONCE = 1, 8, 16, 32
JUDGED = 256
"""Faces that MIDS alone is timed on."""

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Ask = Callable[[int], Awaitable[int]]
"""Asks the three questions about the face of that number; returns how many tokens were generated."""
Told = Callable[[int], None]
"""Is told the number of each face that was answered."""


def crop_of(face: int) -> Crop:
    """Noise, another for each number."""
    return np.random.default_rng(face).integers(0, 256, (CROP_SIZE, CROP_SIZE, 3), np.uint8)


def lengths_of(face: int) -> list[int]:
    """Of its answers, in tokens."""
    lengths: list[int] = np.random.default_rng(face).integers(SHORTEST, LONGEST + 1, len(PROMPTS)).tolist()
    return lengths


def masked_answers_of(face: int) -> list[str]:
    """Texts as long as its masked answers would be."""
    said = islice(cycle(sentences()), face % 100, face % 100 + 20)
    text = " ".join(said)
    return [text[start : start + MASKED_CHARACTERS] for start in range(len(PROMPTS))]


def by_our_engine(engine: VllmEngine) -> Ask:
    """The three questions as a run asks them."""

    async def ask(face: int) -> int:
        crop = crop_of(face)
        sha256 = digest(crop)
        asked = zip(PROMPTS, lengths_of(face), strict=True)
        answers = await asyncio.gather(*(engine.generate(p, crop, sha256, n) for p, n in asked))
        return sum(answer.generated_tokens for answer in answers)

    return ask


def by_bare_vllm(engine: VllmEngine) -> Ask:
    """The same requests, each put to vLLM at once."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    numbers = count()

    async def answer(prompt: str, crop: Crop, sha256: str, n_tokens: int) -> int:
        sampling = SamplingParams(temperature=0, max_tokens=n_tokens)
        sampling.output_kind = RequestOutputKind.FINAL_ONLY
        request: Any = {"prompt": prompt} | _image(crop, sha256)
        assert engine._llm is not None
        outputs = engine._llm.generate(request, sampling, f"bare-{next(numbers)}", lora_request=engine._lora)
        return sum([len(output.outputs[0].token_ids) async for output in outputs])

    async def ask(face: int) -> int:
        crop = crop_of(face)
        sha256 = digest(crop)
        asked = zip(PROMPTS, lengths_of(face), strict=True)
        return sum(await asyncio.gather(*(answer(p, crop, sha256, n) for p, n in asked)))

    return ask


async def rate(ask: Ask, faces: range, at_once: int, told: Told | None = None) -> dict[str, float]:
    """Faces and generated tokens per second while `at_once` faces are asked about."""
    room, ended, n_tokens = asyncio.Semaphore(at_once), list[float](), list[int]()

    async def one(face: int) -> None:
        async with room:
            n_tokens.append(await ask(face))
            ended.append(time.monotonic())
            if told:
                told(face)

    started = time.monotonic()
    await asyncio.gather(*map(one, faces))
    found = {"at_once": at_once, "faces": len(faces), "seconds": ended[-1] - started}
    return found | _steady(ended, n_tokens)


def _steady(ended: Sequence[float], n_tokens: Sequence[int]) -> dict[str, float]:
    """Of the middle half."""
    first, last = len(ended) // 4, 3 * len(ended) // 4
    seconds = ended[last] - ended[first]
    return {
        "faces_per_s": (last - first) / seconds,
        "tokens_per_s": sum(n_tokens[first:last]) / seconds,
    }


async def measure_engine(
    mllm: Path, adapter: Path, mode: AdapterMode, levels: Sequence[int], rounds: int
) -> dict[str, Any]:
    """One engine, asked about ever more faces at once, beside bare vLLM and beside MIDS.

    `rounds` says how many times as many faces as are asked about at once each rate is taken from.
    """
    before, started = gpu_memory(), time.monotonic()
    settings = EngineSettings(adapter=mode, max_concurrent_faces=max(levels))
    engine = await VllmEngine.start(mllm, adapter, settings)
    found: dict[str, Any] = engine.description | {"start_seconds": time.monotonic() - started}
    try:
        found["memory_mib"] = gpu_memory() - before
        found["cache_tokens"] = _cache_tokens(engine)
        next_face = count(step=1_000_000)

        async def take(ask: Ask, at_once: int, n_faces: int, told: Told | None = None) -> dict[str, float]:
            first = next(next_face)  # none is asked about twice: nothing of it would be computed again
            result = await rate(ask, range(first, first + n_faces), at_once, told)
            print(mode, at_once, result, file=sys.stderr, flush=True)
            return result

        our, bare, most = by_our_engine(engine), by_bare_vllm(engine), max(levels)
        await take(our, most, most)  # warm
        figures = engine.figures()
        found["ours"] = [await take(our, level, rounds * level) for level in levels]
        found |= _shares(figures, engine.figures())
        found["bare"] = await take(bare, most, rounds * most)
        found["bare, all"] = await take(bare, rounds * most, rounds * most)
        with judging() as told:
            found["memory_mib_with_mids"] = gpu_memory() - before
            found["ours, and MIDS"] = await take(our, most, rounds * most, told)
    finally:
        await engine.close()
    return found


def _shares(before: EngineFigures, after: EngineFigures) -> dict[str, float]:
    """Tokens of a mean prompt, and how much of it was not computed again."""
    prompt_tokens = after.prompt_tokens - before.prompt_tokens
    return {
        "prompt_tokens": prompt_tokens / (after.requests - before.requests),
        "cached_share": (after.cached_tokens - before.cached_tokens) / prompt_tokens,
    }


def _cache_tokens(engine: VllmEngine) -> int:
    assert engine._llm is not None
    cache = engine._llm.vllm_config.cache_config
    return (cache.num_gpu_blocks or 0) * (cache.block_size or 0)


@contextmanager
def judging() -> Iterator[Told]:
    """MIDS in a process of its own, which judges the faces that it is told of; leaving waits for it."""
    context = multiprocessing.get_context("spawn")
    faces: Queue[int | None] = context.Queue()
    ready = context.Event()
    process = context.Process(target=_judge_all, args=(faces, ready), daemon=True)
    process.start()
    if not ready.wait(300):
        raise RuntimeError("MIDS did not start")
    yield faces.put
    faces.put(None)
    process.join()


def _judge_all(faces: "Queue[int | None]", ready: Any) -> None:
    judge = published_judge(DEVICE, 8)
    judge_faces(judge, range(8))
    ready.set()
    batch = list[int]()
    while (face := faces.get()) is not None:
        batch.append(face)
        if len(batch) == judge.batch_size:
            judge_faces(judge, batch)
            batch = []


def judge_faces(judge: Judge, faces: Sequence[int]) -> None:
    """Ask MIDS about so many faces."""
    logits = judge.logits(list(map(crop_of, faces)), list(map(masked_answers_of, faces)))
    if any(one is None for one in logits):
        raise RuntimeError("MIDS failed")


def measure_mids() -> list[dict[str, float]]:
    """MIDS alone, with batches of several sizes. `memory_mib` is without what CUDA itself takes."""
    found = []
    for batch_size in JUDGED_AT_ONCE:
        judge = published_judge(DEVICE, batch_size)
        crops, answers = [crop_of(f) for f in range(JUDGED)], [masked_answers_of(f) for f in range(JUDGED)]
        judge.logits(crops[:batch_size], answers[:batch_size])
        started = time.monotonic()
        judge.logits(crops, answers)
        found.append({"batch_size": batch_size, "faces_per_s": JUDGED / (time.monotonic() - started)})
        if DEVICE == "cuda":
            found[-1]["memory_mib"] = torch.cuda.max_memory_reserved() / 2**20
            del judge
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        print("MIDS", found[-1], file=sys.stderr, flush=True)
    return found


def gpu_memory() -> int:
    """What is taken of the first GPU, in MiB; 0 without one."""
    if DEVICE == "cpu":
        return 0
    query = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")
    told = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    return int(told.splitlines()[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    modes = [mode for mode in get_args(AdapterMode) if mode != "auto"]
    parser.add_argument(
        "--adapter", nargs="*", choices=modes, default=modes, help="how it is applied (default: either way)"
    )
    parser.add_argument("--at-once", nargs="+", type=int, default=[32, 96, 192], help="faces")
    parser.add_argument("--rounds", type=int, default=8, help="faces of a rate, in those at once")
    parser.add_argument(
        "--layers", type=int, default=32, help="of the language model (default: as published)"
    )
    parser.add_argument("--no-mids", action="store_true", help="do not time MIDS alone")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="keep the 15 GB of the model here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    args = parser.parse_args(arguments)
    found: dict[str, Any] = {"environment": environment()}
    with tempfile.TemporaryDirectory(prefix="ffaa-") as scratch:
        folder = args.model or Path(scratch)
        mllm, adapter = folder / "mllm", folder / "adapter"
        if args.adapter and not mllm.exists():
            write_published_mllm(mllm, adapter, args.layers, DEVICE)
        if not args.no_mids:
            found["mids"] = measure_mids()
        for mode in args.adapter:
            found[mode] = asyncio.run(measure_engine(mllm, adapter, mode, args.at_once, args.rounds))
            if args.json:
                args.json.write_text(json.dumps(found, indent=1) + "\n")
    text = json.dumps(found, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
