"""The answer engine on vLLM, with the LoRA adapter live or merged into the weights."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from ffaa_core.engine.adapter import Adapter
from ffaa_core.engine.base import Crop, EngineFigures, Generation
from ffaa_core.engine.checkpoint import checkpoint_dtype, tensor_shapes
from ffaa_core.engine.environment import prepare_environment
from ffaa_core.errors import AdapterError, EngineDeadError, EngineError
from ffaa_core.settings import EngineSettings

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

CONTEXT = 2048
"""Longest prompt and answer together, in tokens: what the published model was trained with."""

_PROBE = "A photograph of a human face. Describe it and say whether it is real or fake."
_PROBE_TOKENS = 16
_PROBE_TOLERANCE = 1e-4
_QUESTIONS_PER_FACE = 3
_CPU_BLOCK = 32
_PROCESSED_CROPS_GIB = 0.25


class VllmEngine:
    """An `AnswerEngine`; made by `start`."""

    def __init__(self, llm: "AsyncLLM", lora: "LoRARequest | None") -> None:
        self._llm = llm
        self._lora = lora
        self._numbers = itertools.count()
        self._computed: dict[str, asyncio.Event] = {}
        self._figures = EngineFigures()
        self._in_flight = 0
        self._busy_since = 0.0

    @classmethod
    async def start(cls, mllm: Path, adapter: Path | None, settings: EngineSettings) -> Self:
        """Load the model, apply the adapter, and prove that it is applied.

        It takes some 20 seconds and blocks the event loop meanwhile. Processes it starts end with this one.

        Args:
            mllm: a LLaVA checkpoint in the Transformers layout.
            adapter: a PEFT LoRA adapter of its language model, or None.

        Raises:
            BundleError: `mllm` is not such a checkpoint.
            AdapterError: the adapter does not fit, or changes nothing.
            EngineError: vLLM does not start.
        """
        lora = Adapter.read(adapter) if adapter else None
        if lora:
            lora.check_fits(tensor_shapes(mllm))
        prepare_environment()
        live = lora is not None and _applies_live(settings)
        engine = cls(_start_vllm(_arguments(mllm, lora if live else None, settings)), None)
        try:
            if lora and live:
                await engine._apply_live(lora)
            elif lora:
                await engine._merge(mllm, lora)
        except BaseException:
            await engine.close()
            raise
        return engine

    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        """See `AnswerEngine.generate`."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        request = {
            "prompt": prompt,
            "multi_modal_data": {"image": Image.fromarray(crop)},
            "multi_modal_uuids": {"image": crop_sha256},
        }
        structured = StructuredOutputsParams(regex=constraint) if constraint else None
        sampling = SamplingParams(temperature=0, max_tokens=max_tokens, structured_outputs=structured)
        with self._counting_time():
            async with self._crop_computed_once(crop_sha256) as computed:
                output = await self._run(request, sampling, self._lora, computed)
        return self._count(output)

    def figures(self) -> EngineFigures:
        """See `AnswerEngine.figures`."""
        return self._figures

    async def close(self) -> None:
        """See `AnswerEngine.close`."""
        self._llm.shutdown()

    @asynccontextmanager
    async def _crop_computed_once(self, crop_sha256: str) -> AsyncIterator[asyncio.Event]:
        """Let the first of a crop's requests ahead until its prompt is computed, so that the others find it cached.

        vLLM looks a prompt up only when it first schedules it: of many requests that arrive together, the later ones
        are all begun before any image token is computed.
        """
        computed = self._computed.get(crop_sha256)
        if computed:
            await computed.wait()
            yield computed
            return
        computed = self._computed[crop_sha256] = asyncio.Event()
        try:
            yield computed
        finally:
            computed.set()
            del self._computed[crop_sha256]

    async def _run(
        self, request: Any, sampling: "SamplingParams", lora: "LoRARequest | None", computed: asyncio.Event
    ) -> "RequestOutput":
        """The final output; `computed` is set as soon as there is a first token."""
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError as VllmDeadError

        sampling.output_kind = RequestOutputKind.CUMULATIVE
        sampling.stream_interval = CONTEXT
        output = None
        try:
            stream = self._llm.generate(request, sampling, f"{next(self._numbers)}", lora_request=lora)
            async for output in stream:
                computed.set()
        except VllmDeadError as error:
            raise EngineDeadError("the answer engine's process has died; start a new one") from error
        except Exception as error:
            if self._llm.errored:
                raise EngineDeadError("the answer engine's process has died; start a new one") from error
            raise EngineError(f"the answer engine refused a request: {error}") from error
        if output is None:
            raise EngineError("the answer engine returned nothing")
        return output

    async def _apply_live(self, adapter: Adapter) -> None:
        from vllm.lora.request import LoRARequest

        lora = LoRARequest("adapter", 1, str(adapter.path))
        before, after = await self._probe(None), await self._probe(lora)
        _check_changed(adapter, before, after)
        for wrapped in await self._llm.collective_rpc("lora_modules"):
            if ignored := set(adapter.factors) - set(wrapped):
                raise AdapterError(
                    f"vLLM ignores the adapter in {adapter.path} for {', '.join(sorted(ignored))}"
                )
        self._lora = lora

    async def _merge(self, mllm: Path, adapter: Adapter) -> None:
        before = await self._probe(None)
        await self._llm.collective_rpc("merge_adapter", args=(str(mllm), str(adapter.path)))
        await self._llm.reset_prefix_cache()
        _check_changed(adapter, before, await self._probe(None))

    async def _probe(self, lora: "LoRARequest | None") -> list[tuple[int, float]]:
        """Tokens of a short answer and their log probabilities."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0, max_tokens=_PROBE_TOKENS, logprobs=0, ignore_eos=True)
        output = (await self._run({"prompt": _PROBE}, sampling, lora, asyncio.Event())).outputs[0]
        assert output.logprobs is not None
        return [
            (token, step[token].logprob)
            for token, step in zip(output.token_ids, output.logprobs, strict=True)
        ]

    @contextmanager
    def _counting_time(self) -> Iterator[None]:
        if self._in_flight == 0:
            self._busy_since = time.monotonic()
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._figures += EngineFigures(seconds=time.monotonic() - self._busy_since)

    def _count(self, output: "RequestOutput") -> Generation:
        completion = output.outputs[0]
        generation = Generation(
            text=completion.text,
            finish_reason=completion.finish_reason or "unknown",
            prompt_tokens=len(output.prompt_token_ids or ()),
            cached_tokens=output.num_cached_tokens or 0,
            generated_tokens=len(completion.token_ids),
            token_ids=tuple(completion.token_ids),
        )
        self._figures += EngineFigures(
            requests=1,
            prompt_tokens=generation.prompt_tokens,
            cached_tokens=generation.cached_tokens,
            generated_tokens=generation.generated_tokens,
        )
        return generation


def _applies_live(settings: EngineSettings) -> bool:
    from vllm.platforms import current_platform

    if settings.adapter == "auto":
        return not current_platform.is_cpu()
    return settings.adapter == "live"


def _arguments(mllm: Path, live: Adapter | None, settings: EngineSettings) -> dict[str, Any]:
    from vllm.platforms import current_platform

    arguments: dict[str, Any] = {
        "model": str(mllm),
        "dtype": settings.dtype if settings.dtype != "auto" else checkpoint_dtype(mllm),
        "max_model_len": CONTEXT,
        "max_num_seqs": _QUESTIONS_PER_FACE * settings.max_concurrent_faces,
        "limit_mm_per_prompt": {"image": 1, "video": 0, "audio": 0},
        "mm_processor_cache_gb": _PROCESSED_CROPS_GIB,
        "enable_prefix_caching": True,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "worker_extension_cls": "ffaa_core.engine.worker.AdapterWorker",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "seed": 0,
    }
    if current_platform.is_cpu():
        arguments |= {
            "enforce_eager": True,
            "block_size": _CPU_BLOCK,
            "kv_cache_memory_bytes": settings.kv_cache_gib * 2**30,
        }
        if arguments["dtype"] == "float16":
            arguments["dtype"] = "bfloat16"
    else:
        arguments["gpu_memory_utilization"] = settings.gpu_memory_utilization
    if live:
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _supported_rank(live.rank)}
    return arguments


def _supported_rank(rank: int) -> int:
    """The smallest rank vLLM has room for that is at least `rank`."""
    from typing import get_args

    from vllm.config.lora import MaxLoRARanks

    return min((supported for supported in get_args(MaxLoRARanks) if supported >= rank), default=rank)


def _start_vllm(arguments: dict[str, Any]) -> "AsyncLLM":
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    except (RuntimeError, ValueError, OSError) as error:
        raise EngineError(f"the answer engine did not start on {arguments['model']}: {error}") from error


def _check_changed(adapter: Adapter, before: list[tuple[int, float]], after: list[tuple[int, float]]) -> None:
    same = all(
        token == other and abs(logprob - other_logprob) <= _PROBE_TOLERANCE
        for (token, logprob), (other, other_logprob) in zip(before, after, strict=True)
    )
    if same:
        raise AdapterError(f"the adapter in {adapter.path} fits the model but changes no answer")
