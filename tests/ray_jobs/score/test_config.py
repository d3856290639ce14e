"""Settings that contradict each other are refused before anything starts."""

import pytest

from ffaa_core.errors import ConfigurationError
from ffaa_core.examiner import memory_needed
from ffaa_core.settings import DecodeSettings, from_mapping
from ray_jobs.score.config import RunSettings, ScoreConfig


def test_less_memory_than_the_largest_allowed_image_needs_is_refused() -> None:
    needed = memory_needed(ScoreConfig().scoring)
    assert from_mapping(ScoreConfig, {"run": {"image_mib": needed}}).run.image_mib == needed
    with pytest.raises(ConfigurationError, match=f"image_mib is {needed - 1}, .* may need {needed} MiB"):
        from_mapping(ScoreConfig, {"run": {"image_mib": needed - 1}})


def test_a_model_that_hangs_is_found_out_before_the_run_stalls() -> None:
    assert RunSettings().hang_seconds == 600
    assert RunSettings(stall_minutes=3).hang_seconds == 60
    assert RunSettings(hang_minutes=2, stall_minutes=3).hang_seconds == 120
    with pytest.raises(ConfigurationError, match=r"hang_minutes is 5, but run.stall_minutes 5"):
        RunSettings(hang_minutes=5, stall_minutes=5)


def test_smaller_images_need_less() -> None:
    decode = DecodeSettings(max_pixels=1_000_000, max_bytes=1_000_000)
    assert ScoreConfig(decode=decode, run=RunSettings(image_mib=600)).run.image_mib == 600
