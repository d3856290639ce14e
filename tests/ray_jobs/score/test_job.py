"""Every stage proves its bundle before it works."""

import shutil
from pathlib import Path

import pytest

from ffaa_core.bundle import Bundle
from ffaa_core.errors import BundleError
from ffaa_core.settings import FaceSettings, fingerprint
from ray_jobs.score.config import ScoreConfig
from ray_jobs.score.job import Job


def job(bundle: Bundle, config: ScoreConfig) -> Job:
    sealed = fingerprint(ScoreConfig().scoring, bundle.digests)
    return Job(output="/nowhere", run=1, fingerprint=sealed, bundle=bundle.location, config=config)


def test_the_bundle_the_plan_was_sealed_for_is_opened(demo_bundle: Bundle) -> None:
    assert job(demo_bundle, ScoreConfig()).open_bundle("mids") == demo_bundle


def test_another_fingerprint_than_the_plans_is_refused(demo_bundle: Bundle) -> None:
    other = ScoreConfig(faces=FaceSettings(margin=1))
    with pytest.raises(BundleError, match="every machine needs the same bundle"):
        job(demo_bundle, other).open_bundle("mids")


def test_only_the_parts_a_stage_loads_are_read(demo_bundle: Bundle, tmp_path: Path) -> None:
    bundle = Bundle.open(shutil.copytree(demo_bundle.path, tmp_path / "bundle"))
    weights = bundle.mids / "config.json"
    weights.write_bytes(weights.read_bytes().swapcase())
    job(bundle, ScoreConfig()).open_bundle("mllm", "adapter")
    with pytest.raises(BundleError, match=r"mids/config\.json differs"):
        job(bundle, ScoreConfig()).open_bundle("mids", "vision", "text")
