"""Whether the models fit into memory, reckoned from the sizes of their tensors before any is loaded."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffaa_core.bundle import Bundle
from ffaa_core.engine.checkpoint import serving_dtype, tensor_shapes
from ffaa_core.engine.vllm_arguments import CONTEXT
from ffaa_core.errors import BundleError
from ffaa_core.examiner import memory_needed
from ray_jobs.doctor.finding import Finding, error, ok, warning
from ray_jobs.doctor.machine import MachineFacts
from ray_jobs.score.cluster import Shares
from ray_jobs.score.config import ScoreConfig

GIB = 2**30
ENGINE_BYTES, JUDGE_BYTES, FETCH_BYTES = int(2.0 * GIB), int(1.2 * GIB), int(0.6 * GIB)
"""What a process of each stage holds besides weights, cache and image: libraries, activations, crops."""
GPU_ACTIVATIONS, GPU_JUDGE = int(1.5 * GIB), int(1.25 * GIB)
"""The same of an engine and of MIDS on a GPU."""
IMAGE_TOKENS, QUESTION_TOKENS = 576, 80
"""Of a face once, and of each of its three questions."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CHECK = "memory"


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """Bytes of the multimodal LLM as it is served, of a token in its key-value cache, and of MIDS."""

    weights: int
    kv_token: int
    mids: int


def model_sizes(bundle: Bundle, dtype: str) -> ModelSizes:
    """The sizes of a bundle's models, the multimodal LLM in `dtype`.

    Raises:
        BundleError: a file is not what it must be.
    """
    width = BYTES[dtype]
    text = _text_config(bundle.mllm)
    heads = text["num_attention_heads"]
    kv_heads = text.get("num_key_value_heads") or heads
    head_width = text.get("head_dim") or text["hidden_size"] // heads
    return ModelSizes(
        weights=width * sum(map(math.prod, tensor_shapes(bundle.mllm).values())),
        kv_token=2 * text["num_hidden_layers"] * kv_heads * head_width * width,
        mids=4 * sum(map(_parameters, (bundle.vision, bundle.text, bundle.mids))),
    )


def check_memory(
    bundle: Bundle, config: ScoreConfig, shares: Shares, nodes: Sequence[MachineFacts]
) -> Iterator[Finding]:
    """Findings on the memory of the machines that would hold the models.

    Raises:
        BundleError: a file of the bundle is not what it must be.
    """
    on_gpu = shares.answer_gpus > 0
    dtype = serving_dtype(bundle.mllm, config.engine, on_cpu=not on_gpu)
    sizes = model_sizes(bundle, dtype)
    if on_gpu:
        yield from check_gpus(sizes, config, shares, nodes)
    else:
        yield from check_cpus(sizes, config, shares, nodes)


def check_cpus(
    sizes: ModelSizes, config: ScoreConfig, shares: Shares, nodes: Sequence[MachineFacts]
) -> Iterator[Finding]:
    """Engines and MIDS beside each other in the memory of machines without GPUs."""
    cache = config.engine.kv_cache_gib * GIB
    engine = sizes.weights + cache + ENGINE_BYTES
    judge = sizes.mids + JUDGE_BYTES
    image = (config.run.image_mib or memory_needed(config.scoring)) << 20
    fetch = FETCH_BYTES + image
    needed = shares.answer_actors * engine + shares.judge_actors * judge + len(nodes) * fetch
    free, largest = sum(node.memory for node in nodes), max(node.memory for node in nodes)
    what = (
        f"engine {_each(shares.answer_actors, engine)} (weights {_gib(sizes.weights)}, cache {_gib(cache)}), "
        f"MIDS {_each(shares.judge_actors, judge)}, a largest image {_each(len(nodes), fetch)}: "
        f"{_gib(needed)} of the {_gib(free)} that are free"
    )
    if needed > free or engine > largest:
        advice = "use machines with more memory, fewer actors (run.answer_actors), or --dtype bfloat16"
        yield error(CHECK, f"the models do not fit: {what}", advice)
    else:
        yield ok(CHECK, f"the models fit: {what}", needed_bytes=needed, free_bytes=free)
    yield check_cache(cache, sizes, config, "raise engine.kv_cache_gib")


def check_gpus(
    sizes: ModelSizes, config: ScoreConfig, shares: Shares, nodes: Sequence[MachineFacts]
) -> Iterator[Finding]:
    """An engine, and MIDS beside it, on each GPU; the smallest there is must do."""
    gpus = [gpu for node in nodes for gpu in node.gpus]
    if not gpus:
        yield warning(
            CHECK,
            "the GPUs are not there yet, so what fits is not known",
            "start a GPU node and ask the doctor again",
        )
        return
    smallest = min(gpus, key=lambda gpu: gpu.free)
    engines = int(config.engine.gpu_memory_utilization * smallest.total)
    weights = sizes.weights // config.engine.tensor_parallel_size
    cache = engines - weights - GPU_ACTIVATIONS
    judge = sizes.mids + GPU_JUDGE if shares.judge_gpus else 0
    what = (
        f"the smallest GPU, {smallest.name}, has {_gib(smallest.free)} of {_gib(smallest.total)} free; the "
        f"engine takes {_gib(engines)} (weights {_gib(weights)}), MIDS {_gib(judge)}"
    )
    advice = "use larger GPUs or engine.tensor_parallel_size, or change engine.gpu_memory_utilization"
    if engines + judge > smallest.free or cache <= 0:
        yield error(CHECK, f"the models do not fit: {what}", advice)
        return
    yield ok(CHECK, f"the models fit: {what}", free_bytes=smallest.free)
    yield check_cache(cache * config.engine.tensor_parallel_size, sizes, config, advice)


def check_cache(cache: int, sizes: ModelSizes, config: ScoreConfig, advice: str) -> Finding:
    """Whether the key-value cache holds as many faces as are asked about at once."""
    tokens = cache // sizes.kv_token
    per_face = IMAGE_TOKENS + 3 * (QUESTION_TOKENS + config.answers.max_tokens)
    faces, wanted = tokens // per_face, config.engine.max_concurrent_faces
    text = f"the key-value cache of {_gib(cache)} holds {tokens:,} tokens, {faces:,} faces at once"
    if tokens < CONTEXT:
        return error(CHECK, f"{text}: the engine does not start below {CONTEXT}", advice)
    if faces < wanted:
        return warning(CHECK, f"{text}; {wanted} are asked about at once and would wait", advice, faces=faces)
    return ok(CHECK, text, faces=faces)


def _text_config(mllm: Path) -> dict[str, Any]:
    path = mllm / "config.json"
    try:
        text: dict[str, Any] = json.loads(path.read_text())["text_config"]
        for name in ("num_hidden_layers", "num_attention_heads", "hidden_size"):
            int(text[name])
    except (OSError, ValueError, TypeError, KeyError) as failure:
        raise BundleError(f"{path} does not tell the sizes of the text model: {failure}") from failure
    return text


def _parameters(part: Path) -> int:
    """Numbers in a part's weights."""
    from safetensors import SafetensorError, safe_open

    count = 0
    for path in part.glob("*.safetensors"):
        try:
            with safe_open(path, framework="numpy") as file:
                count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except SafetensorError as failure:
            raise BundleError(f"{path} cannot be read: {failure}") from failure
    return count


def _each(number: int, size: int) -> str:
    return _gib(size) if number == 1 else f"{number} times {_gib(size)}"


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
