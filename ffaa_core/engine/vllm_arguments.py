"""How vLLM is told to run the multimodal LLM."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from ffaa_core.engine.adapter import Adapter
from ffaa_core.engine.checkpoint import serving_dtype
from ffaa_core.engine.lifeline import Lifeline
from ffaa_core.errors import ConfigurationError, EngineError
from ffaa_core.settings import EngineSettings

if TYPE_CHECKING:
    from vllm.config import VllmConfig

CONTEXT = 2048
"""Longest prompt and answer together, in tokens: what the published model was trained with."""

_QUESTIONS_PER_FACE = 3
_PROCESSED_CROPS_GIB = 0.25
_CPU_BLOCK = 32


def applies_live(settings: EngineSettings) -> bool:
    """Whether an adapter is applied in vLLM rather than merged into the weights."""
    return settings.adapter == "live"


def vllm_arguments(mllm: Path, live: Adapter | None, settings: EngineSettings) -> dict[str, Any]:
    """Arguments of vLLM's `AsyncEngineArgs` for the model in `mllm`, with room for the adapter `live`.

    Raises:
        ConfigurationError: the adapter cannot be live in the model's dtype.
    """
    from vllm.platforms import current_platform

    arguments: dict[str, Any] = {
        "model": str(mllm),
        "dtype": serving_dtype(mllm, settings, on_cpu=current_platform.is_cpu()),
        "max_model_len": CONTEXT,
        "max_num_seqs": _QUESTIONS_PER_FACE * settings.max_concurrent_faces,
        "limit_mm_per_prompt": {"image": 1, "video": 0, "audio": 0},
        "mm_processor_cache_gb": _PROCESSED_CROPS_GIB,
        "enable_prefix_caching": True,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "worker_extension_cls": "ffaa_core.engine.worker.AdapterWorker",
        "additional_config": {"ffaa": Lifeline("lifeline")},
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
    else:
        arguments["gpu_memory_utilization"] = settings.gpu_memory_utilization
        if live and arguments["dtype"] == "float32":
            raise ConfigurationError(
                "on a GPU vLLM applies an adapter live in bfloat16 or float16 only, and this model is in "
                "float32: set adapter to merged, or dtype to bfloat16"
            )
    if live:
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _supported_rank(live.rank)}
    return arguments


def resolve(arguments: dict[str, Any]) -> "VllmConfig":
    """What vLLM makes of its arguments with this model on this machine, before it loads anything.

    Raises:
        ConfigurationError: vLLM cannot run this model in this way, such as on so many GPUs.
        EngineError: the machine or its driver failed.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    try:
        # Only as a server does vLLM choose how many tokens it computes at once by the machine it is on.
        return AsyncEngineArgs(**arguments).create_engine_config(UsageContext.OPENAI_API_SERVER)
    except ValueError as error:
        raise ConfigurationError(f"vLLM cannot run {arguments['model']} so: {_reason(error)}") from error
    except (RuntimeError, OSError) as error:
        raise EngineError(f"vLLM cannot be configured here: {error}") from error


def _reason(error: Exception) -> str:
    """What is wrong, without the settings that pydantic shows with it."""
    if isinstance(error, ValidationError):
        return "; ".join(problem["msg"] for problem in error.errors())
    return str(error)


def _supported_rank(rank: int) -> int:
    """The smallest rank for which vLLM makes room that is at least `rank`."""
    from vllm.config.lora import MaxLoRARanks

    return min((supported for supported in get_args(MaxLoRARanks) if supported >= rank), default=rank)
