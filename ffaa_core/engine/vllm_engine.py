"""The answer engine on vLLM, with the LoRA adapter live or merged into the weights."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from ffaa_core.conversation import Turn
from ffaa_core.engine.adapter import Adapter
from ffaa_core.engine.base import Crop, EngineFigures, Generation, Piece, Sampling
from ffaa_core.engine.checkpoint import tensor_shapes
from ffaa_core.engine.child_output import ChildOutput
from ffaa_core.engine.environment import is_verbose, prepare_environment
from ffaa_core.engine.prompt import PromptWriter
from ffaa_core.engine.vllm_arguments import CONTEXT, applies_live, resolve, vllm_arguments
from ffaa_core.errors import AdapterError, EngineDeadError, EngineError
from ffaa_core.settings import AnswerSettings, EngineSettings

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

_PROBE = "A photograph of a human face. Describe it and say whether it is real or fake."
_PROBE_TOKENS = 16
_PROBE_TOLERANCE = 1e-4
_LOOK_EVERY_S = 0.5

_Probe = list[tuple[int, float]]
_Seen = Callable[["RequestOutput"], None]
"""Called with each output of a request."""


class VllmEngine:
    """A `ConversingEngine`; made by `start`, and bound to the event loop that ran it."""

    def __init__(self, llm: "AsyncLLM", writer: PromptWriter, output: ChildOutput) -> None:
        self.description: dict[str, str] = {}
        self._llm: AsyncLLM | None = llm
        self._writer = writer
        self._output = output
        self._lora: LoRARequest | None = None
        self._numbers = itertools.count()
        self._requests: set[asyncio.Task[RequestOutput]] = set()
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
            ConfigurationError: vLLM cannot run the model with these settings on this machine.
            EngineError: vLLM does not start.
        """
        lora = Adapter.read(adapter) if adapter else None
        if lora:
            lora.check_fits(tensor_shapes(mllm))
        prepare_environment(settings.cpu_threads)
        output = ChildOutput()
        with nullcontext() if is_verbose() else output.inherited():
            live = lora is not None and applies_live(settings)
            arguments = vllm_arguments(mllm, lora if live else None, settings)
            engine = cls(_start_vllm(arguments, output), PromptWriter(mllm), output)
            mode = ("live" if live else "merged") if lora else "none"
            engine.description = {"dtype": arguments["dtype"], "adapter": mode}
        if not is_verbose():
            logging.getLogger("vllm").setLevel(logging.CRITICAL)
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

        structured = StructuredOutputsParams(regex=constraint) if constraint else None
        sampling = SamplingParams(temperature=0, max_tokens=max_tokens, structured_outputs=structured)
        sampling.stream_interval = (
            CONTEXT  # the first output comes with the first token, the next is the last
        )
        request = {"prompt": prompt} | _image(crop, crop_sha256)
        with self._counting_time():
            async with self._crop_computed_once(crop_sha256) as computed:
                output = await self._run(request, sampling, self._lora, lambda _: computed.set())
        return self._count(output)

    async def converse(
        self, turns: Sequence[Turn], crop: Crop, crop_sha256: str, sampling: Sampling
    ) -> AsyncGenerator[Piece]:
        """See `ConversingEngine.converse`."""
        ids = await asyncio.to_thread(self._writer.write, turns)
        max_tokens = self._writer.room(ids, sampling.max_tokens, AnswerSettings.max_tokens)
        request = {"prompt_token_ids": ids} | _image(crop, crop_sha256)
        outputs: asyncio.Queue[RequestOutput | None] = asyncio.Queue()
        with self._counting_time():
            async with self._crop_computed_once(crop_sha256) as computed:

                def seen(output: "RequestOutput") -> None:
                    computed.set()
                    outputs.put_nowait(output)

                run = asyncio.create_task(
                    self._run(request, _sampling(sampling, max_tokens), self._lora, seen)
                )
                run.add_done_callback(lambda _: outputs.put_nowait(None))
                try:
                    said = ""
                    while output := await outputs.get():
                        yield _piece(output, said)
                        said = output.outputs[0].text
                    self._count(await run)
                finally:
                    run.cancel()
                    await asyncio.gather(run, return_exceptions=True)

    def figures(self) -> EngineFigures:
        """See `AnswerEngine.figures`."""
        return self._figures

    async def check(self) -> None:
        """Return when the engine's process says that it lives, between two steps of what it computes.

        Raises:
            EngineDeadError: it is gone, or was closed.
        """
        llm = self._llm
        if llm is None or llm.errored:
            raise EngineDeadError("the answer engine is gone")
        # Only that process can answer this, and it changes nothing. If it dies meanwhile nobody does.
        said = asyncio.ensure_future(llm.is_sleeping())
        try:
            while not (await asyncio.wait([said], timeout=_LOOK_EVERY_S))[0]:
                if llm.errored:
                    raise EngineDeadError("the answer engine is gone")
            said.result()
        except EngineDeadError:
            raise
        except Exception as error:
            raise EngineDeadError(f"the answer engine is gone: {error}") from error
        finally:
            said.cancel()

    async def close(self) -> None:
        """See `AnswerEngine.close`. Requests in flight raise `EngineDeadError`."""
        llm, self._llm = self._llm, None
        for request in self._requests:
            request.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        if llm:
            llm.shutdown()

    @asynccontextmanager
    async def _crop_computed_once(self, crop_sha256: str) -> AsyncIterator[asyncio.Event]:
        """Let a crop's first request ahead until its prompt is computed, so that the others find it cached.

        vLLM looks a prompt up only when it first schedules it: of many requests that arrive together, the
        later ones are all begun before any image token is computed.
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
        self,
        request: Any,
        sampling: "SamplingParams",
        lora: "LoRARequest | None",
        seen: _Seen | None = None,
    ) -> "RequestOutput":
        """The final output; `seen` is told of each, the first of which comes with the first token."""
        from vllm.v1.engine.exceptions import EngineDeadError as VllmDeadError

        llm = self._llm
        if llm is None:
            raise EngineDeadError("the answer engine was closed")
        task = asyncio.create_task(_last_output(llm, request, sampling, f"{next(self._numbers)}", lora, seen))
        self._requests.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            task.cancel()
            if self._llm is None:
                raise EngineDeadError("the answer engine was closed while it answered") from None
            raise
        except Exception as error:
            if isinstance(error, VllmDeadError) or llm.errored:
                raise EngineDeadError(
                    f"the answer engine's process has died; start a new one. Its last words: "
                    f"{self._output.last_line() or 'none'}"
                ) from error
            raise EngineError(f"the answer engine refused a request: {error}") from error
        finally:
            self._requests.discard(task)

    async def _apply_live(self, adapter: Adapter) -> None:
        from vllm.lora.request import LoRARequest

        lora = LoRARequest("adapter", 1, str(adapter.path))
        _check_changed(adapter, await self._probe(None), await self._probe(lora))
        for wrapped in await self._call_workers("lora_modules"):
            if ignored := set(adapter.factors) - set(wrapped):
                raise AdapterError(
                    f"vLLM ignores the adapter in {adapter.path} for {', '.join(sorted(ignored))}"
                )
        self._lora = lora

    async def _merge(self, mllm: Path, adapter: Adapter) -> None:
        before = await self._probe(None)
        await self._call_workers("merge_adapter", str(mllm), str(adapter.path))
        _check_changed(adapter, before, await self._probe(None))

    async def _call_workers(self, method: str, *args: str) -> list[Any]:
        """Call a method of `AdapterWorker` in each of vLLM's workers, and forget what was computed before."""
        assert self._llm is not None
        try:
            results: list[Any] = await self._llm.collective_rpc(method, args=args)
            await self._llm.reset_prefix_cache()
        except Exception as error:
            raise EngineError(f"the answer engine failed to {method}: {error}") from error
        return results

    async def _probe(self, lora: "LoRARequest | None") -> _Probe:
        """Tokens of a short answer and their log probabilities."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0, max_tokens=_PROBE_TOKENS, logprobs=0, ignore_eos=True)
        completion = (await self._run({"prompt": _PROBE}, sampling, lora)).outputs[0]
        steps = zip(completion.token_ids, completion.logprobs or (), strict=True)
        return [(token, step[token].logprob) for token, step in steps if step]

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


def _start_vllm(arguments: dict[str, Any], output: ChildOutput) -> "AsyncLLM":
    from vllm.v1.engine.async_llm import AsyncLLM

    config = resolve(arguments)
    try:
        return AsyncLLM.from_vllm_config(config, disable_log_stats=arguments["disable_log_stats"])
    except (RuntimeError, ValueError, OSError) as error:
        raise EngineError(
            f"the answer engine did not start on {arguments['model']}: {error} {output.last_line()}".rstrip()
        ) from error


async def _last_output(
    llm: "AsyncLLM",
    request: Any,
    sampling: "SamplingParams",
    number: str,
    lora: "LoRARequest | None",
    seen: _Seen | None,
) -> "RequestOutput":
    """Run a request to its end."""
    from vllm.sampling_params import RequestOutputKind

    sampling.output_kind = RequestOutputKind.CUMULATIVE
    last = None
    async for output in llm.generate(request, sampling, number, lora_request=lora):
        last = output
        if seen:
            seen(output)
    if last is None:
        raise RuntimeError("it returned nothing")
    return last


def _image(crop: Crop, crop_sha256: str) -> dict[str, Any]:
    """The part of a request that says what it is about."""
    return {
        "multi_modal_data": {"image": Image.fromarray(crop)},
        "multi_modal_uuids": {"image": crop_sha256},
    }


def _sampling(sampling: Sampling, max_tokens: int) -> "SamplingParams":
    from vllm import SamplingParams

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        stop=list(sampling.stop),
        seed=sampling.seed,
        max_tokens=max_tokens,
    )


def _piece(output: "RequestOutput", said: str) -> Piece:
    """What an output says more than has been said."""
    completion = output.outputs[0]
    return Piece(
        text=completion.text[len(said) :],
        finish_reason=completion.finish_reason,
        prompt_tokens=len(output.prompt_token_ids or ()),
        cached_tokens=output.num_cached_tokens or 0,
        generated_tokens=len(completion.token_ids),
    )


def _check_changed(adapter: Adapter, before: _Probe, after: _Probe) -> None:
    same = all(
        token == other and abs(logprob - other_logprob) <= _PROBE_TOLERANCE
        for (token, logprob), (other, other_logprob) in zip(before, after, strict=True)
    )
    if same:
        raise AdapterError(f"the adapter in {adapter.path} fits the model but changes no answer")
