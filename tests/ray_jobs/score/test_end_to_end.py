"""When a run has failed too often."""

from pathlib import Path

import pytest

from ffaa_core.table import Run, VerdictTable
from ray_jobs.score.end_to_end import exit_code, is_leftover, last_exit_code
from tests.ffaa_core.table.shards import images, score_all


@pytest.mark.parametrize(
    ("statuses", "rate", "expected"),
    [
        ({"scored": 100}, 0.0, 0),
        ({"scored": 95, "decode_failed": 5}, 0.05, 0),
        ({"scored": 94, "decode_failed": 6}, 0.05, 3),
        ({"scored": 96, "answer_failed": 1, "judge_failed": 1, "crashed": 1, "fetch_failed": 1}, 0.03, 3),
        ({"no_face": 50, "too_large": 25, "scored": 25}, 0.0, 0),
        ({"decode_failed": 10}, 1.0, 0),
        ({"gone": 10}, 0.05, 3),
        ({"scored": 98, "gone": 2}, 0.05, 0),
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


def test_the_exit_code_that_is_handed_on_is_that_of_the_last_finished_run(tmp_path: Path) -> None:
    table = VerdictTable.open(str(tmp_path / "out"), create=True)

    def plan(n: int, of: str = "in") -> Run:
        run = table.plan(images(n), fingerprint="f", settings={"input": of})
        assert run is not None
        return run

    assert last_exit_code(table.runs(), "f", "in") == 0
    finished = plan(2)
    score_all(finished)
    finished.close(3)
    plan(4).abandon()
    elsewhere = plan(4, "elsewhere")
    score_all(elsewhere)
    elsewhere.close(0)
    assert last_exit_code(table.runs(), "f", "in") == 3
    assert last_exit_code(table.runs(), "g", "in") == 0


@pytest.mark.parametrize(
    ("begun_as", "called", "expected"),
    [
        ("monday", "tuesday", True),
        ("monday", None, True),
        (None, None, True),
        ("monday", "monday", False),
    ],
)
def test_a_run_that_was_open_is_left_over_unless_it_has_this_commands_name(
    tmp_path: Path, begun_as: str | None, called: str | None, expected: bool
) -> None:
    table = VerdictTable.open(str(tmp_path / "out"), create=True)
    begun = table.plan(images(2), fingerprint="f", settings={}, name=begun_as)
    run = table.plan([], fingerprint="f", settings={}, name=called)
    assert begun is not None
    assert run is not None
    assert is_leftover(run, begun, called) is expected
    assert not is_leftover(run, None, called)
