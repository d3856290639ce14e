"""Whether models fit, reckoned before they load."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ffaa_core.bundle import Bundle
from ffaa_core.errors import BundleError
from ffaa_core.settings import AnswerSettings, EngineSettings
from ray_jobs.doctor.machine import Gpu, MachineFacts
from ray_jobs.doctor.memory import GIB, ModelSizes, check_cpus, check_gpus, check_memory, model_sizes
from ray_jobs.score.cluster import divide
from ray_jobs.score.config import RunSettings, ScoreConfig

PUBLISHED = ModelSizes(weights=int(14.1 * GIB), kv_token=2 * 32 * 8 * 128 * 2, mids=int(1.8 * GIB))
"""The published model in bfloat16: Mistral 7B, with 8 of 32 heads in its key-value cache."""
MACHINE = MachineFacts(
    name="node",
    versions={},
    clock=0,
    cpus=16,
    memory=64 * GIB,
    scratch=GIB,
    gpus=(),
    no_gpu="",
    dlib="",
    dlib_avx=True,
    cpu_avx=True,
    unseen=(),
)


def with_gpu(total: float, free: float) -> MachineFacts:
    return replace(MACHINE, gpus=(Gpu(name="X", total=int(total * GIB), free=int(free * GIB)),))


def test_sizes_are_those_of_the_files(demo_bundle: Bundle) -> None:
    def numbers(part: str) -> int:
        files = (demo_bundle.path / part).glob("*.safetensors")
        return sum(tensor.numel() for file in files for tensor in load_file(file).values())

    sizes = model_sizes(demo_bundle, "float32")
    assert sizes.weights == 4 * numbers("mllm")
    assert sizes.mids == 4 * sum(map(numbers, ("mids", "vision", "text")))
    assert sizes.kv_token == 2 * 2 * 2 * 32 * 4  # keys and values, layers, heads, width, bytes
    assert model_sizes(demo_bundle, "bfloat16").weights * 2 == sizes.weights


def test_a_bundle_that_tells_no_sizes_is_refused(demo_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "mllm").mkdir()
    (tmp_path / "mllm" / "config.json").write_text(json.dumps({"text_config": {"hidden_size": 4}}))
    with pytest.raises(BundleError, match="does not tell the sizes of the text model"):
        model_sizes(replace(demo_bundle, path=tmp_path), "float32")


def test_the_demo_bundle_fits_any_machine(demo_bundle: Bundle) -> None:
    config = ScoreConfig()
    found = list(check_memory(demo_bundle, config, divide(2, 0, config), [replace(MACHINE, memory=8 * GIB)]))
    assert [finding.level for finding in found] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("memory", "actors", "level"), [(64, 1, "ok"), (16, 1, "error"), (64, 4, "error"), (90, 4, "ok")]
)
def test_engines_and_mids_share_the_memory_of_machines_without_gpus(
    memory: int, actors: int, level: str
) -> None:
    config = ScoreConfig(run=RunSettings(answer_actors=actors))
    nodes = [replace(MACHINE, memory=memory * GIB)]
    found = next(check_cpus(PUBLISHED, config, divide(64, 0, config), nodes))
    assert found.level == level, found.text


def test_two_machines_hold_what_one_does_not_unless_an_engine_is_too_large_for_each() -> None:
    config = ScoreConfig(run=RunSettings(answer_actors=2))
    shares = divide(64, 0, config)
    for memory, level in ((24, "ok"), (16, "error")):
        nodes = [replace(MACHINE, memory=memory * GIB)] * 2
        if memory == 16:
            nodes *= 2  # enough together
        assert next(check_cpus(PUBLISHED, config, shares, nodes)).level == level


@pytest.mark.parametrize(
    ("cache", "tokens", "faces", "level"),
    [(1, 512, 32, "warning"), (1, 64, 4, "ok"), (16, 512, 32, "ok")],
)
def test_a_cache_that_holds_fewer_faces_than_are_asked_about_is_a_warning(
    cache: int, tokens: int, faces: int, level: str
) -> None:
    config = ScoreConfig(
        engine=EngineSettings(kv_cache_gib=cache, max_concurrent_faces=faces),
        answers=AnswerSettings(max_tokens=tokens),
    )
    found = list(check_cpus(PUBLISHED, config, divide(64, 0, config), [MACHINE]))[-1]
    assert found.level == level, found.text


def test_a_cache_with_which_the_engine_would_not_start_is_an_error() -> None:
    config = ScoreConfig()
    wide = replace(PUBLISHED, kv_token=GIB // 2047)
    found = list(check_cpus(wide, config, divide(64, 0, config), [MACHINE]))[-1]
    assert found.level == "error"
    assert "does not start below 2048" in found.text


@pytest.mark.parametrize(
    ("total", "free", "level"), [(80, 79, "ok"), (24, 23.5, "ok"), (16, 15.8, "error"), (80, 40, "error")]
)
def test_an_engine_and_mids_share_a_gpu(total: float, free: float, level: str) -> None:
    config = ScoreConfig()
    found = list(check_gpus(PUBLISHED, config, divide(16, 1, config), [with_gpu(total, free)]))
    assert found[0].level == level, found[0].text


def test_an_engine_over_two_gpus_fits_where_one_does_not() -> None:
    config = ScoreConfig(engine=EngineSettings(tensor_parallel_size=2))
    found = list(check_gpus(PUBLISHED, config, divide(16, 2, config), [with_gpu(16, 15.8)]))
    assert found[0].level == "ok", found[0].text


def test_gpus_that_are_started_on_demand_cannot_be_judged() -> None:
    config = ScoreConfig(run=RunSettings(gpus=4))
    (found,) = check_gpus(PUBLISHED, config, divide(16, 4, config), [MACHINE])
    assert found.level == "warning"
    assert "not there yet" in found.text
