"""What one machine says of itself: its versions, clock, processor, memory and GPUs."""

import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ffaa_core.environment import versions
from ffaa_core.errors import FFAAError
from ffaa_core.storage import locate

DETECT = """
import dlib, numpy
dlib.get_frontal_face_detector()(numpy.zeros((64, 64, 3), numpy.uint8))
print(dlib.__version__, dlib.USE_AVX_INSTRUCTIONS)
"""
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU, and its memory in bytes."""

    name: str
    total: int
    free: int


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """What one machine says of itself; `memory` and `scratch` are free bytes, of memory and of TMPDIR.

    `no_gpu` and `dlib` say why there is none, or why it does not work, and are empty otherwise. `unseen`
    names what of INPUT, OUTPUT and the bundle it cannot read, and why.
    """

    name: str
    versions: dict[str, str]
    clock: float
    cpus: int
    memory: int
    scratch: int
    gpus: tuple[Gpu, ...]
    no_gpu: str
    dlib: str
    dlib_avx: bool
    cpu_avx: bool
    unseen: tuple[str, ...]


def machine_facts(must_see: Sequence[str]) -> MachineFacts:
    """Look at the machine this runs on."""
    gpus, no_gpu = _gpus()
    dlib, dlib_avx = _dlib()
    return MachineFacts(
        name=platform.node(),
        versions=versions(),
        clock=time.time(),
        cpus=len(os.sched_getaffinity(0)),
        memory=_free_memory(),
        scratch=_free_bytes(tempfile.gettempdir()),
        gpus=gpus,
        no_gpu=no_gpu,
        dlib=dlib,
        dlib_avx=dlib_avx,
        cpu_avx=" avx " in _read("/proc/cpuinfo"),
        unseen=tuple(problem for uri in must_see if (problem := _unseen(uri))),
    )


def _gpus() -> tuple[tuple[Gpu, ...], str]:
    """The GPUs the driver tells, and why there is none."""
    try:
        told = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        return (), "no NVIDIA driver is installed (there is no nvidia-smi)"
    except (OSError, subprocess.TimeoutExpired) as failure:
        return (), f"nvidia-smi does not answer: {failure}"
    if told.returncode:
        return (), f"nvidia-smi says: {(told.stdout + told.stderr).strip() or told.returncode}"
    return parse_gpus(told.stdout), "nvidia-smi lists none"


def parse_gpus(listing: str) -> tuple[Gpu, ...]:
    """GPUs from nvidia-smi's lines of name, total and free MiB."""
    rows = (line.rsplit(",", 2) for line in listing.splitlines() if line.strip())
    return tuple(Gpu(name=name, total=int(total) << 20, free=int(free) << 20) for name, total, free in rows)


def _dlib() -> tuple[str, bool]:
    """What is wrong with dlib, tried in a process that may die of it; and whether it uses AVX."""
    tried = subprocess.run(
        [sys.executable, "-c", DETECT], capture_output=True, text=True, timeout=120, check=False
    )
    if tried.returncode < 0:
        return f"it dies of {signal.Signals(-tried.returncode).name}", False
    if tried.returncode:
        return tried.stderr.strip().rpartition("\n")[2], False
    return "", tried.stdout.split()[-1] == "True"


def _free_memory() -> int:
    """Bytes of memory that can be had, by the machine's count and the container's limit."""
    free = int(_table("/proc/meminfo")["MemAvailable:"]) << 10
    for folder, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        most, now = _read(f"{folder}/{limit}").strip(), _read(f"{folder}/{used}").strip()
        if most.isdecimal() and now.isdecimal():
            cached = int(_table(f"{folder}/memory.stat").get("inactive_file", 0))
            free = min(free, int(most) - int(now) + cached)
    return free


def _table(path: str) -> dict[str, str]:
    """The first two words of every line."""
    return {words[0]: words[1] for line in _read(path).splitlines() if len(words := line.split()) > 1}


def _free_bytes(folder: str) -> int:
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _unseen(uri: str) -> str:
    """Why the object cannot be read here; empty if it can."""
    try:
        store, key = locate(uri)
        store.stat(key)
    except FFAAError as failure:
        return str(failure)
    return ""
