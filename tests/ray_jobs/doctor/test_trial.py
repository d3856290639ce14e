"""Scoring one shard to time it, with stages that do as they are told."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ffaa_core.bundle import Bundle
from ffaa_core.engine.base import AnswerEngine
from ffaa_core.errors import AdapterError, EngineError
from ffaa_core.settings import FaceSettings, fingerprint
from ray_jobs.doctor import trial
from ray_jobs.doctor.trial import Timed, try_shard
from ray_jobs.score.answer import AnswerStage
from ray_jobs.score.cluster import Shares, cluster
from ray_jobs.score.config import RunSettings, ScoreConfig
from ray_jobs.score.inputs import list_images
from ray_jobs.score.job import Job
from tests.ray_jobs.score.scripted import ScriptedAnswerStage, ScriptedJudgeStage

CONFIG = ScoreConfig(faces=FaceSettings(mode="whole_image"), run=RunSettings(shard_size=3))

pytestmark = pytest.mark.slow


class UselessAdapterStage(ScriptedAnswerStage):
    async def start_engine(self, job: Job) -> AnswerEngine:
        raise AdapterError("the adapter fits the model but changes no answer")


class DyingStage(ScriptedAnswerStage):
    def __call__(self, block: Any) -> Any:
        os._exit(1)


@pytest.fixture(scope="module")
def shares() -> Iterator[Shares]:
    with cluster(CONFIG, verbose=False) as shares:
        yield shares


@pytest.fixture
def scored(
    shares: Shares,
    demo_bundle: Bundle,
    make_images: Callable[[Path, int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[type[AnswerStage]], Timed]:
    """Scores a shard with this stage in the place of the engine's."""
    images = list(list_images(str(make_images(tmp_path / "in", 5))))

    def score(stage: type[AnswerStage]) -> Timed:
        monkeypatch.setattr(trial, "AnswerStage", stage)
        monkeypatch.setattr(trial, "JudgeStage", ScriptedJudgeStage)
        marked = fingerprint(CONFIG.scoring, demo_bundle.digests)
        return try_shard(CONFIG, str(tmp_path / "table"), marked, str(demo_bundle.path), images, shares)

    return score


def test_a_shard_is_scored_and_each_stage_timed(scored: Callable[[type[AnswerStage]], Timed]) -> None:
    timed = scored(ScriptedAnswerStage)
    assert timed.counts.statuses == {"scored": 3}
    assert min(timed.loading, timed.fetching, timed.answering, timed.judging) > 0
    assert timed.engine["generated_tokens"] == 3 * 3 * 40


def test_an_adapter_that_changes_nothing_is_told_in_its_own_words(
    scored: Callable[[type[AnswerStage]], Timed],
) -> None:
    with pytest.raises(AdapterError, match="fits the model but changes no answer"):
        scored(UselessAdapterStage)


def test_an_engine_that_dies_is_told(scored: Callable[[type[AnswerStage]], Timed]) -> None:
    with pytest.raises(EngineError, match="a stage failed while a shard was answered"):
        scored(DyingStage)
