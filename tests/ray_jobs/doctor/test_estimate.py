"""What one timed shard says of a whole run."""

from dataclasses import replace

import pytest

from ffaa_core.settings import EngineSettings
from ffaa_core.table import Counts
from ray_jobs.doctor.estimate import Speed, judge_shard, speed
from ray_jobs.doctor.finding import Finding
from ray_jobs.doctor.trial import Timed
from ray_jobs.score.cluster import divide
from ray_jobs.score.config import RunSettings, ScoreConfig

CONFIG = ScoreConfig(engine=EngineSettings(), run=RunSettings(answer_actors=1))
COUNTS = Counts(images=40, statuses={"scored": 40}, verdicts={"real": 40}, contested=0, faces=60)
ENGINE = {
    "prompt_tokens": 1000,
    "cached_tokens": 570,
    "generated_tokens": 800,
    "environment": {"adapter": "live"},
}
TIMED = Timed(loading=30, fetching=10, answering=8, judging=2, counts=COUNTS, engine=ENGINE)


def judged(timed: Timed = TIMED, price: float | None = None) -> list[Finding]:
    shares = divide(2, 0, CONFIG)
    return list(judge_shard(timed, speed(timed, shares, 2), CONFIG, price))


def test_at_least_one_shard_at_a_time_and_at_most_the_slowest_stage() -> None:
    assert speed(TIMED, divide(2, 0, CONFIG), 2) == Speed(least=2.0, most=4.0, slowest="fetch and crop")


def test_how_the_adapter_is_applied_is_told() -> None:
    assert "the engine applies it (live)" in judged()[0].text
    without = replace(TIMED, engine=ENGINE | {"environment": {"adapter": "none"}})
    assert "the engine needs none" in judged(without)[0].text


def test_more_cores_fetch_until_the_engine_is_the_slowest() -> None:
    assert speed(TIMED, divide(16, 0, CONFIG), 16) == Speed(least=2.0, most=5.0, slowest="answer")


def test_engines_multiply_until_the_only_mids_is_the_slowest() -> None:
    for engines, least in ((8, 16.0), (16, 20.0)):
        config = ScoreConfig(run=RunSettings(answer_actors=engines))
        reckoned = speed(TIMED, divide(64, engines, config), 64)
        assert reckoned == Speed(least=least, most=20.0, slowest="judge")


def test_the_price_of_a_million_images_follows_from_both_speeds() -> None:
    found = judged(price=7.2)[-1]
    assert found.check == "price"
    assert found.text.startswith("$500.00 to $1,000.00 a million images")
    assert found.figures == {"dollars_per_million_least": 500.0, "dollars_per_million_most": 1000.0}


def test_without_a_price_none_is_told() -> None:
    assert [finding.check for finding in judged()] == ["adapter", "shard", "shard", "shard"]
    assert {finding.level.value for finding in judged()} == {"ok"}


def test_faces_and_tokens_are_told() -> None:
    *_, rates, tokens = judged()
    assert rates.figures["faces_per_second"] == 3.0
    assert "57% of them cached" in tokens.text
    assert tokens.figures == {"cached_share": 0.57, "generated_per_second": 100.0}


def test_image_tokens_that_are_never_cached_are_a_warning() -> None:
    found = judged(replace(TIMED, engine=ENGINE | {"cached_tokens": 0}))[-1]
    assert found.level == "warning"
    assert "prefix caching" in found.advice


def test_a_shard_without_a_face_says_nothing_of_speed() -> None:
    counts = replace(COUNTS, faces=0, statuses={"no_face": 40})
    found = judged(replace(TIMED, counts=counts), price=1.0)[-1]
    assert found.level == "warning"
    assert "no face in 40 images" in found.text


@pytest.mark.parametrize(("failed", "level"), [(2, "ok"), (3, "warning")])
def test_more_failures_than_allowed_are_a_warning(failed: int, level: str) -> None:
    counts = replace(COUNTS, statuses={"scored": 40 - failed, "decode_failed": failed})
    assert judged(replace(TIMED, counts=counts))[1].level == level
