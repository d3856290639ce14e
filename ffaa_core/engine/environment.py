"""The process environment vLLM is started with: private, offline, quiet, and modest on a CPU."""

import os

VERBOSE = "FFAA_VERBOSE"
"""Set to anything, this variable shows all that vLLM has to say; `ffaa score --verbose` sets it."""


def is_verbose() -> bool:
    """Whether the user asked, by setting `FFAA_VERBOSE`, to see all that libraries have to say."""
    return bool(os.environ.get(VERBOSE))


def prepare_environment(cpu_threads: int) -> None:
    """Set what vLLM and its processes read from the environment; all but the threads only where it is unset.

    FlashInfer's sampler would be compiled as vLLM starts, by CUDA's compiler, which a machine that only runs
    models does not have. vLLM's own does the same.

    On a CPU vLLM by default pins its threads to fixed cores, the same ones for every engine on a machine and
    those that other stages use; here the system places them. Ray sets the number of threads of every worker
    to the cores it reserves, which for an engine says nothing, so it is always set.

    Args:
        cpu_threads: threads of the engine; 0 leaves one core to the others.
    """
    os.environ["OMP_NUM_THREADS"] = str(cpu_threads or max(1, len(os.sched_getaffinity(0)) - 1))
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    }
    if not is_verbose():
        defaults |= {"VLLM_LOGGING_LEVEL": "ERROR", "TRANSFORMERS_VERBOSITY": "error"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    _start_faster_on_a_cpu()


def _start_faster_on_a_cpu() -> None:
    """Two things that vLLM does on a CPU and that cost more than they save.

    Compiling needs a C++ compiler. A process of its own for a single worker is for binding its threads to
    cores, which is off; without it the engine's process does the work, as it does on a GPU.
    """
    from vllm.platforms import current_platform  # after the settings above, which vLLM reads on import

    if current_platform.is_cpu():
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
