"""Showing a run while it goes on."""

import io
import threading
import time
from collections import Counter

import pytest
from rich.console import Console

from ray_jobs.score import display
from ray_jobs.score.display import Display, RunState, count_lines, duration


def state() -> RunState:
    """20 images were committed before; the first 10 of this process came late, the next 30 within 10 s."""
    shown = RunState(n_images=100, images_done=20)
    shown.advance(20, 0, now=5)
    shown.advance(30, 9, now=100)
    shown.advance(60, 55, now=110)
    return shown


def test_a_line_tells_images_faces_speed_statuses_and_time_left() -> None:
    shown = state()
    shown.statuses = Counter(scored=50, decode_failed=10)
    assert (
        shown.line() == "60/100 images · 55 faces · 3.0 images/s · 10 decode_failed · 50 scored · 13 s left"
    )


def test_speed_counts_neither_earlier_commits_nor_the_loading_of_models() -> None:
    assert state().images_per_second == 3


def test_before_the_first_image_the_line_says_that_models_load() -> None:
    assert RunState(n_images=5).line().endswith("starting: the models take a while to load")


@pytest.mark.parametrize(("seconds", "text"), [(47.6, "48 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts_are_aligned_and_largest_first() -> None:
    assert count_lines({"no_face": 3, "scored": 12}) == ["  scored   12", "  no_face  3"]


@pytest.mark.parametrize(("terminal", "interval"), [(True, "LIVE_INTERVAL_S"), (False, "PLAIN_INTERVAL_S")])
def test_a_terminal_gets_a_bar_and_a_pipe_plain_lines(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, interval: str
) -> None:
    monkeypatch.setattr(display, interval, 0.01)
    monkeypatch.setenv("TERM", "xterm")
    written = io.StringIO()
    updated = threading.Event()

    def update(shown: RunState) -> None:
        shown.advance(61, 56, now=111)
        updated.set()

    with Display(state(), update, Console(file=written, force_terminal=terminal, width=120)):
        assert updated.wait(10)
        time.sleep(0.2)
    assert "61/100 images" in written.getvalue()
    assert ("━" in written.getvalue()) is terminal
    assert ("\x1b" in written.getvalue()) is terminal


def test_a_failing_update_leaves_the_last_state_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "PLAIN_INTERVAL_S", 0.01)
    written = io.StringIO()
    failures = []

    def update(_: RunState) -> None:
        failures.append(1)
        raise RuntimeError("the progress actor is gone")

    with Display(state(), update, Console(file=written, width=200)):
        time.sleep(0.3)
    assert len(failures) > 1
    assert "60/100 images" in written.getvalue()
