"""Joining a cluster, and dividing it among the stages."""

import os

import pytest
from ray._private.utils import check_version_info

from ffaa_core.errors import ConfigurationError, JobError
from ffaa_core.settings import EngineSettings
from ray_jobs.score.cluster import cluster, divide, foreseen
from ray_jobs.score.config import RunSettings, ScoreConfig
from ray_jobs.score.ray_settings import DRIVER_SETTINGS


def config(width: int = 1, actors: int = 0) -> ScoreConfig:
    return ScoreConfig(
        engine=EngineSettings(tensor_parallel_size=width), run=RunSettings(answer_actors=actors)
    )


@pytest.mark.parametrize(
    ("gpus", "width", "actors", "expected"),
    [(0, 1, 0, 1), (1, 1, 0, 1), (8, 1, 0, 8), (8, 2, 0, 4), (8, 1, 3, 3), (0, 1, 2, 2)],
)
def test_there_is_one_engine_per_group_of_gpus_unless_told(
    gpus: int, width: int, actors: int, expected: int
) -> None:
    assert divide(64, gpus, config(width, actors)).answer_actors == expected


@pytest.mark.parametrize(("shards", "engines", "judges"), [(0, 1, 1), (1, 1, 1), (2, 2, 2), (99, 16, 3)])
def test_no_more_actors_are_asked_for_than_there_are_shards_to_do(
    shards: int, engines: int, judges: int
) -> None:
    settings = ScoreConfig(run=RunSettings(gpus=16, judge_actors=3))
    room = divide(*foreseen({"CPU": 2}, settings, joined=True), settings)
    assert (room.answer_actors, room.judge_actors) == (16, 3)
    needed = room.at_most(shards)
    assert (needed.answer_actors, needed.judge_actors) == (engines, judges)
    assert needed.answer_gpus == room.answer_gpus


def test_two_cores_hold_an_engine_mids_and_a_task_that_crops() -> None:
    shares = divide(2, 0, config())
    assert shares.least_cpus <= 2
    assert shares.fetch_cpus == 1
    assert shares.answer_gpus == shares.judge_gpus == 0


def test_one_gpu_holds_an_engine_and_mids() -> None:
    shares = divide(16, 1, config())
    assert 0 < shares.judge_gpus < shares.answer_gpus
    assert shares.answer_gpus + shares.judge_gpus <= 1


def test_an_engine_over_several_gpus_takes_whole_ones() -> None:
    assert divide(16, 4, config(width=2)).answer_gpus == 2


@pytest.mark.parametrize("gpus", [0, 8])
def test_ray_data_cannot_fuse_fetching_into_the_engines_process(gpus: int) -> None:
    shares = divide(16, gpus, config())
    assert (shares.fetch_cpus, 0) != (shares.answer_cpus, shares.answer_gpus)


def test_one_core_holds_everything_too() -> None:
    assert divide(1, 0, config()).least_cpus <= 1


@pytest.mark.parametrize(("gpus", "fetch_cpus"), [(None, 0.25), (0, 1), (8, 1)])
def test_a_cluster_that_starts_its_nodes_on_demand_crops_one_image_per_core(
    gpus: int | None, fetch_cpus: float
) -> None:
    settings = ScoreConfig(run=RunSettings(gpus=gpus))
    head_alone = {"memory": 1e9}
    shares = divide(*foreseen(head_alone, settings, joined=True), settings)
    assert shares.fetch_cpus == fetch_cpus
    assert shares.answer_actors == max(1, gpus or 0)


def test_this_machine_has_the_cores_it_has() -> None:
    settings = ScoreConfig(run=RunSettings(gpus=1))
    assert foreseen({"CPU": 2, "GPU": 4}, settings, joined=False) == (2, 1)
    assert foreseen({"CPU": 2, "GPU": 4}, config(), joined=True) == (2, 4)


def test_an_engine_wider_than_the_machine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="tensor_parallel_size is 4, but there are 2 GPUs"):
        divide(16, 2, config(width=4))


def test_actors_that_this_machine_cannot_hold_are_refused_and_do_not_wait_for_ever() -> None:
    with (
        pytest.raises(ConfigurationError, match=r"need .* cores, this machine has"),
        cluster(config(actors=1000), verbose=False),
    ):
        pass


def test_a_ray_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", init)
    with (
        pytest.raises(JobError, match=r"cannot start Ray on this machine: .* timed out"),
        cluster(config(), verbose=False),
    ):
        pass


def test_a_cluster_of_another_version_is_an_error_of_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        others = {"ray_version": "1.0.0", "python_version": "3.7.0"}
        check_version_info(others, "127.0.0.1", raise_on_mismatch=True)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", init)
    with (
        pytest.raises(ConfigurationError, match=r"(?s)Version mismatch.*Ray: 1\.0\.0"),
        cluster(config(), verbose=False),
    ):
        pass


def test_a_cluster_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(JobError, match=r"127\.0\.0\.1:9"), cluster(config(), verbose=False):
        pass


@pytest.mark.parametrize("own", [None, "1000"])
def test_a_driver_pings_a_cluster_no_oftener_than_any_ray_allows_unless_told(
    own: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ | {"RAY_ADDRESS": "127.0.0.1:9"})
    names = [f"RAY_{name}" for name in DRIVER_SETTINGS]
    for name in names:
        os.environ.pop(name, None)
        if own:
            os.environ[name] = own
    with pytest.raises(JobError), cluster(config(), verbose=False):
        pass
    assert [os.environ[name] for name in names] == [own or str(value) for value in DRIVER_SETTINGS.values()]
