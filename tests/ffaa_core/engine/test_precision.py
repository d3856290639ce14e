"""Half precision, and GPUs: where an answer leaves that of float32, the two tokens were nearly tied."""

from collections.abc import Awaitable, Callable
from statistics import median

import pytest
import torch

from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.settings import AdapterMode, DType, EngineSettings
from tests.ffaa_core.engine.parity import CROPS, divergences, long_answers, long_answers_of
from tests.ffaa_core.engine.reference import Reference, Tokens
from tests.fixtures.engine import DemoModel

GAPS = {"float32": 0.01, "float16": 0.05, "bfloat16": 0.25}
"""What rounding may do to a logit in the median; leaving the adapter out changes one by 2."""

SOME = CROPS[:8]

Measure = Callable[[EngineSettings], Awaitable[list[float]]]

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs")


@pytest.fixture(scope="module")
def expected(reference: Reference) -> list[Tokens]:
    return long_answers_of(reference, SOME)


@pytest.fixture
def gaps(demo_mllm: DemoModel, reference: Reference, expected: list[Tokens]) -> Measure:
    """Starts an engine and gives the logit gap of every answer, 0 where it is the expected one."""

    async def measure(settings: EngineSettings) -> list[float]:
        engine = await VllmEngine.start(demo_mllm.mllm, demo_mllm.adapter, settings)
        try:
            ours = await long_answers(engine, SOME)
        finally:
            await engine.close()
        diverged = divergences(reference, SOME, ours, expected)
        return [d.gap for d in diverged] + [0.0] * (len(ours) - len(diverged))

    return measure


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
async def test_half_precision_leaves_float32_only_at_near_ties(dtype: DType, gaps: Measure) -> None:
    assert median(await gaps(EngineSettings(dtype=dtype))) < GAPS[dtype]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    ("dtype", "adapter"),
    [
        ("float32", "merged"),
        ("float16", "merged"),
        ("bfloat16", "merged"),
        ("float16", "live"),
        ("bfloat16", "live"),
    ],
)
async def test_a_gpu_leaves_float32_on_a_cpu_only_at_near_ties(
    dtype: DType, adapter: AdapterMode, gaps: Measure
) -> None:
    settings = EngineSettings(dtype=dtype, adapter=adapter, gpu_memory_utilization=0.3)
    assert median(await gaps(settings)) < GAPS[dtype]


@pytest.mark.gpu
@needs_two_gpus
@pytest.mark.parametrize(("adapter", "dtype"), [("live", "bfloat16"), ("merged", "float32")])
async def test_a_model_split_among_two_gpus_answers_like_the_whole(
    adapter: AdapterMode, dtype: DType, gaps: Measure
) -> None:
    settings = EngineSettings(
        dtype=dtype, adapter=adapter, tensor_parallel_size=2, gpu_memory_utilization=0.3
    )
    assert median(await gaps(settings)) < GAPS[dtype]
