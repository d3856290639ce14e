"""Knowing where every shard is."""

import pytest

from ray_jobs.score.whereabouts import NOTHING, Whereabouts


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def places(clock: Clock) -> Whereabouts:
    return Whereabouts(clock)


def test_shards_are_described_with_step_process_and_time_longest_first(
    places: Whereabouts, clock: Clock
) -> None:
    places.load("engine", "p1")
    clock.now = 60
    places.enter(7, "fetch", "p2")
    places.enter(3, "answer", "p3")
    clock.now = 150
    places.enter(7, "fetched", "p2")
    clock.now = 160
    assert places.describe() == (
        "engine loading for 2 min 40 s (p1); shard 3 in answer for 1 min 40 s (p3); "
        "shard 7 fetched and waiting for an engine for 10 s (p2)"
    )


def test_processes_that_die_over_their_model_are_counted(places: Whereabouts, clock: Clock) -> None:
    for clock.now in range(0, 50, 10):
        places.load("engine", f"p{clock.now}")
    assert places.describe() == "engine loading for 0 s (p40), after 4 others that began and are not done"


def test_a_long_description_is_cut_and_says_so(places: Whereabouts) -> None:
    for shard in range(10):
        places.enter(shard, "fetch", "p")
    assert places.describe().endswith("; shard 7 in fetch for 0 s (p); 2 more")


def test_what_is_committed_or_loaded_is_nowhere(places: Whereabouts) -> None:
    places.load("MIDS", "p1")
    places.enter(1, "judge", "p1")
    places.loaded("MIDS", "p1")
    places.leave(1)
    assert places.describe() == NOTHING


def test_done_steps_are_movement_and_begun_ones_are_not(places: Whereabouts) -> None:
    """A process that dies again and again begins again and again."""
    steps = []
    for act in (
        lambda: places.load("engine", "p"),
        lambda: places.loaded("engine", "p"),
        lambda: places.enter(1, "fetch", "p"),
        lambda: places.enter(1, "fetched", "p"),
        lambda: places.enter(1, "answer", "p"),
        lambda: places.enter(1, "answered", "p"),
        lambda: places.enter(1, "judge", "p"),
        lambda: places.leave(1),
        lambda: places.move(),
    ):
        before = places.movement().steps
        act()
        steps.append(places.movement().steps - before)
    assert steps == [0, 1, 0, 1, 0, 1, 0, 1, 1]


def test_after_a_stop_no_shard_is_fetched_or_answered_that_was_not_being_answered(
    places: Whereabouts,
) -> None:
    for step in ("fetch", "fetched"):
        places.enter(1, step, "p")
    for step in ("fetch", "fetched", "answer"):
        places.enter(2, step, "p")
    places.stop()
    assert not places.enter(3, "fetch", "p")
    assert not places.enter(1, "answer", "p")
    assert places.movement().in_flight == 1
    assert places.enter(2, "answer", "a process that replaces p")
    assert places.enter(2, "answered", "p")
    assert places.enter(2, "judge", "p")
    assert places.movement().in_flight == 1
    places.leave(2)
    assert places.movement().in_flight == 0
