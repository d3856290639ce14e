"""Deciding that a run must end."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from ffaa_core.errors import JobError
from ray_jobs.score import watch
from ray_jobs.score.config import RunSettings
from ray_jobs.score.signals import StopRequest
from ray_jobs.score.watch import Watch, watched
from ray_jobs.score.whereabouts import Whereabouts


class Local:
    """The progress actor's verbs, called in this process; `None` in its place never answers."""

    def __init__(self, places: Whereabouts) -> None:
        self.places: Whereabouts | None = places

    def __getattr__(self, name: str) -> Any:
        return type("Verb", (), {"remote": lambda _: getattr(self.places, name)() if self.places else self})()


@pytest.fixture
def places() -> Whereabouts:
    return Whereabouts()


@pytest.fixture
def progress(places: Whereabouts, monkeypatch: pytest.MonkeyPatch) -> Local:
    def get(answer: Any, timeout: float) -> Any:
        if isinstance(answer, Local):
            raise ray.exceptions.GetTimeoutError
        return answer

    monkeypatch.setattr(ray, "get", get)
    return Local(places)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time."""
    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])

    def set_to(seconds: float) -> None:
        now[0] = seconds

    return set_to


def a_watch(progress: Local, request: StopRequest | None = None, told: list[str] | None = None) -> Watch:
    settings = RunSettings(stall_minutes=1, grace_seconds=100)
    tell = (told if told is not None else []).append
    return Watch(progress, request or StopRequest(patient=True), settings, tell)  # type: ignore[arg-type]


def test_a_run_in_which_something_moves_goes_on(
    progress: Local, places: Whereabouts, clock: Callable[[float], None]
) -> None:
    looks_after = a_watch(progress)
    for seconds in range(0, 1000, 50):
        places.move()
        clock(seconds)
        looks_after.check()


def test_a_run_in_which_nothing_moves_ends_and_says_where_it_stands(
    progress: Local, places: Whereabouts, clock: Callable[[float], None]
) -> None:
    looks_after = a_watch(progress)
    places.enter(4, "answer", "process 1 on 10.0.0.1")
    clock(59)
    looks_after.check()
    clock(61)
    with pytest.raises(JobError, match=r"no progress for 1 min 01 s: shard 4 in answer .*10\.0\.0\.1"):
        looks_after.check()


def test_silence_is_no_progress(progress: Local, clock: Callable[[float], None]) -> None:
    looks_after = a_watch(progress)
    progress.places = None
    clock(59)
    looks_after.check()
    clock(61)
    with pytest.raises(JobError, match="does not answer"):
        looks_after.check()


def test_after_a_signal_the_run_ends_when_no_shard_is_in_flight(
    progress: Local, places: Whereabouts, clock: Callable[[float], None]
) -> None:
    request, told = StopRequest(patient=True), list[str]()
    looks_after = a_watch(progress, request, told)
    places.enter(4, "answer", "p")
    request.received = "SIGTERM"
    for seconds in (0, 50, 99):  # nothing moves for longer than makes a stall
        clock(seconds)
        looks_after.check()
    assert len(told) == 1
    assert not places.enter(5, "fetch", "p")
    places.leave(4)
    with pytest.raises(JobError, match="stopped by SIGTERM"):
        looks_after.check()


@pytest.mark.parametrize("silent", [False, True])
def test_after_the_grace_period_the_run_ends_whatever_is_in_flight(
    progress: Local, places: Whereabouts, clock: Callable[[float], None], silent: bool
) -> None:
    request = StopRequest(patient=True)
    looks_after = a_watch(progress, request)
    places.enter(4, "judge", "p")
    progress.places = None if silent else places
    request.received = "SIGINT"
    looks_after.check()
    clock(101)
    told = "does not answer" if silent else "shard 4 in judge"
    with pytest.raises(JobError, match=f"SIGINT; not finished in time: .*{told}"):
        looks_after.check()


def test_of_many_processes_that_wait_for_storage_one_is_told_a_minute(
    progress: Local, places: Whereabouts, clock: Callable[[float], None]
) -> None:
    told = list[str]()
    looks_after = a_watch(progress, told=told)
    for seconds in (1, 2, 50, 70):
        clock(seconds)
        places.move()
        for process in range(3):
            places.wait(f"waiting since {seconds}", f"process {process}")
        looks_after.check()
        looks_after.check()
    assert told == ["waiting since 1 (process 2)", "waiting since 70 (process 2)"]


def test_items_come_through_in_order_and_so_does_what_ends_them() -> None:
    def items() -> Iterator[int]:
        yield from range(100)
        raise ValueError("the end")

    through = watched(items(), lambda: None)
    assert [next(through) for _ in range(100)] == list(range(100))
    with pytest.raises(ValueError, match="the end"):
        next(through)
    assert list(watched(iter("abc"), lambda: None)) == list("abc")


@pytest.mark.parametrize("busy", [False, True])
def test_a_check_ends_the_items_whether_they_come_or_not(busy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "INTERVAL_S", 0.05)
    released = threading.Event()

    def items() -> Iterator[int]:
        while busy and not released.is_set():
            time.sleep(0.001)
            yield 1
        released.wait(30)

    def check() -> None:
        raise JobError("enough")

    with pytest.raises(JobError, match="enough"):
        list(watched(items(), check))
    released.set()
