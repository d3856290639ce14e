"""When a run has failed too often."""

import pytest

from ray_jobs.score.end_to_end import exit_code


@pytest.mark.parametrize(
    ("statuses", "rate", "expected"),
    [
        ({"scored": 100}, 0.0, 0),
        ({"scored": 95, "decode_failed": 5}, 0.05, 0),
        ({"scored": 94, "decode_failed": 6}, 0.05, 3),
        ({"scored": 96, "answer_failed": 1, "judge_failed": 1, "crashed": 1, "fetch_failed": 1}, 0.03, 3),
        ({"no_face": 50, "too_large": 25, "scored": 25}, 0.0, 0),
        ({"decode_failed": 10}, 1.0, 0),
    ],
)
def test_more_failures_among_new_images_than_the_rate_allows_end_in_3(
    statuses: dict[str, int], rate: float, expected: int
) -> None:
    assert exit_code(statuses, {"fetch_failed": 50}, 0, rate) == expected


@pytest.mark.parametrize(
    ("again", "before", "expected"),
    [
        ({"fetch_failed": 10}, 0, 0),
        ({"fetch_failed": 10}, 3, 3),
        ({"scored": 10}, 3, 0),
        ({"scored": 9, "fetch_failed": 1}, 3, 3),
    ],
)
def test_a_run_that_only_tries_again_ends_as_the_one_before_unless_all_is_well_now(
    again: dict[str, int], before: int, expected: int
) -> None:
    assert exit_code({}, again, before, 0.05) == expected
