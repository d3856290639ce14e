"""Other weights by configuration alone: what vLLM makes of our arguments, on a CPU and as if on GPUs.

vLLM resolves its configuration before it loads anything, so that what a CPU cannot run is still checked.
"""

import json
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ffaa_core.engine.adapter import Adapter
from ffaa_core.engine.environment import prepare_environment
from ffaa_core.engine.vllm_arguments import applies_live, resolve, vllm_arguments
from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.errors import ConfigurationError
from ffaa_core.settings import DType, EngineSettings
from tests.ffaa_core.engine.llava_1_5 import as_llava_1_5
from tests.fixtures.engine import DemoModel

Resolve = Callable[..., Any]


@pytest.fixture
def resolved(demo_mllm: DemoModel) -> Resolve:
    """Resolves the configuration for a model, the demo's by default, with its adapter where that is live."""
    prepare_environment(1)

    def resolved(model: DemoModel = demo_mllm, **settings: Any) -> Any:
        chosen = EngineSettings(**settings)
        adapter = Adapter.read(model.adapter) if applies_live(chosen) else None
        return resolve(vllm_arguments(model.mllm, adapter, chosen))

    return resolved


@pytest.fixture
def stored_as(demo_mllm: DemoModel, tmp_path: Path) -> Callable[[str], DemoModel]:
    """Makes a copy of the demo model that says it is stored in a dtype."""

    def make(dtype: str) -> DemoModel:
        mllm = Path(shutil.copytree(demo_mllm.mllm, tmp_path / "mllm"))
        config = json.loads((mllm / "config.json").read_text())
        (mllm / "config.json").write_text(json.dumps(config | {"dtype": dtype}))
        return DemoModel(mllm, demo_mllm.adapter)

    return make


@pytest.fixture
def on_gpus(monkeypatch: pytest.MonkeyPatch, resolved: Resolve) -> None:
    """Lets vLLM believe that it runs on four H100, once it has imported what it needs of the CPU's build."""
    resolved()
    monkeypatch.setitem(sys.modules, "vllm._C_stable_libtorch", types.ModuleType("libtorch"))
    from vllm import platforms
    from vllm.platforms.cuda import CudaPlatformBase
    from vllm.platforms.interface import DeviceCapability

    class FourH100(CudaPlatformBase):
        get_device_capability = classmethod(lambda cls, device_id=0: DeviceCapability(9, 0))
        get_device_name = classmethod(lambda cls, device_id=0: "NVIDIA H100")
        get_device_total_memory = classmethod(lambda cls, device_id=0: 80 * 2**30)
        is_fully_connected = classmethod(lambda cls, device_ids: True)
        device_count = classmethod(lambda cls: 4)
        log_warnings = classmethod(lambda cls: None)

    monkeypatch.setattr(platforms, "_current_platform", FourH100())
    for module in list(sys.modules.values()):
        if module.__name__.startswith("vllm.") and "current_platform" in vars(module):
            monkeypatch.setattr(module, "current_platform", FourH100())


@pytest.mark.parametrize(
    ("stored", "asked", "used"),
    [
        ("float32", "auto", torch.float32),
        ("bfloat16", "auto", torch.bfloat16),
        ("float16", "auto", torch.float32),
        ("float16", "float16", torch.float16),
        ("float16", "bfloat16", torch.bfloat16),
    ],
)
def test_on_a_cpu_the_dtype_is_the_stored_or_the_asked_one_but_half_becomes_single(
    stored: str, asked: DType, used: torch.dtype, stored_as: Callable[[str], DemoModel], resolved: Resolve
) -> None:
    assert resolved(stored_as(stored), dtype=asked).model_config.dtype is used


@pytest.mark.usefixtures("on_gpus")
@pytest.mark.parametrize(
    ("stored", "asked", "used"),
    [
        ("float16", "auto", torch.float16),
        ("bfloat16", "auto", torch.bfloat16),
        ("bfloat16", "float16", torch.float16),
        ("float32", "bfloat16", torch.bfloat16),
    ],
)
def test_on_a_gpu_the_dtype_is_the_stored_or_the_asked_one(
    stored: str, asked: DType, used: torch.dtype, stored_as: Callable[[str], DemoModel], resolved: Resolve
) -> None:
    config = resolved(stored_as(stored), dtype=asked)
    assert (config.device_config.device_type, config.model_config.dtype) == ("cuda", used)


@pytest.mark.usefixtures("on_gpus")
@pytest.mark.parametrize(("size", "executor"), [(1, "uni"), (2, "mp"), (4, "mp")])
def test_on_gpus_the_model_is_split_among_as_many_as_are_asked_for(
    size: int, executor: str, resolved: Resolve
) -> None:
    config = resolved(tensor_parallel_size=size, gpu_memory_utilization=0.7)
    assert config.parallel_config.tensor_parallel_size == size
    assert config.parallel_config.distributed_executor_backend == executor
    assert config.cache_config.gpu_memory_utilization == 0.7
    assert not config.model_config.enforce_eager


@pytest.mark.usefixtures("on_gpus")
def test_on_a_gpu_the_adapter_is_merged_unless_asked_to_be_live(resolved: Resolve) -> None:
    assert resolved().lora_config is None
    assert resolved(adapter="live", dtype="bfloat16").lora_config.max_lora_rank == 32


@pytest.mark.usefixtures("on_gpus")
def test_on_a_gpu_no_adapter_is_live_in_float32(resolved: Resolve) -> None:
    with pytest.raises(ConfigurationError, match="set adapter to merged, or dtype to bfloat16"):
        resolved(adapter="live", dtype="float32")


@pytest.mark.usefixtures("on_gpus")
def test_as_many_tokens_are_computed_at_once_as_vllm_chooses_for_the_gpu(resolved: Resolve) -> None:
    assert resolved().scheduler_config.max_num_batched_tokens == 8192


def test_on_a_cpu_the_adapter_is_merged_unless_asked_to_be_live(resolved: Resolve) -> None:
    assert resolved().lora_config is None
    assert resolved(adapter="live").lora_config.max_lora_rank == 32


def test_a_model_may_be_split_on_a_cpu_too(resolved: Resolve) -> None:
    assert resolved(tensor_parallel_size=2).parallel_config.world_size == 2


def test_a_llava_1_5_base_needs_no_other_settings(
    demo_mllm: DemoModel, tmp_path: Path, resolved: Resolve
) -> None:
    config = resolved(as_llava_1_5(demo_mllm, tmp_path))
    assert config.model_config.hf_text_config.model_type == "llama"
    assert config.model_config.architectures == ["LlavaForConditionalGeneration"]
    assert config.model_config.max_model_len == 2048


async def test_a_model_that_cannot_be_split_so_is_a_wrong_configuration_and_not_tried_again(
    demo_mllm: DemoModel,
) -> None:
    with pytest.raises(ConfigurationError, match="must be divisible by tensor parallel size") as refused:
        await VllmEngine.start(demo_mllm.mllm, None, EngineSettings(tensor_parallel_size=3))
    assert refused.value.exit_code == 2
    assert "input_value" not in str(refused.value)
