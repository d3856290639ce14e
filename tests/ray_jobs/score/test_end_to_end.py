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
        ({"no_face": 50, "too_large": 25, "gone": 25}, 0.0, 0),
        ({"decode_failed": 10}, 1.0, 0),
    ],
)
def test_more_failures_than_the_rate_allows_end_in_3(
    statuses: dict[str, int], rate: float, expected: int
) -> None:
    assert exit_code(statuses, rate) == expected
