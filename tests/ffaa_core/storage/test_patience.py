"""How long a request is tried, and what the user hears of it."""

from types import SimpleNamespace

import pytest

from ffaa_core.errors import ConfigurationError
from ffaa_core.storage import patience
from ffaa_core.storage.patience import PATIENCE, Patience, tell_waits_to


class Clock:
    """Time that passes only where somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    monkeypatch.setattr(patience, "random", SimpleNamespace(uniform=lambda _, longest: longest))
    monkeypatch.setattr(patience, "_silence", patience._Silence())
    return clock


@pytest.fixture
def told(clock: Clock) -> list[tuple[float, str]]:
    """What the user is told, and when."""
    told: list[tuple[float, str]] = []
    tell_waits_to(lambda line: told.append((clock.now - 1000, line)))
    return told


def fail(tries: Patience, failure: str = "it is down") -> None:
    """Let a request fail until nobody tries it any more."""
    while tries.wait(failure):
        pass


def test_an_outage_is_told_within_five_seconds_and_once(clock: Clock, told: list[tuple[float, str]]) -> None:
    requests = [Patience() for _ in range(8)]
    for tries in requests:
        tries.wait("it is down")
    fail(requests[0])
    ((seconds, line),) = told
    assert seconds <= 5
    assert line == f"waiting for storage: it is down; it is tried again for {120 - seconds:.0f} s"
    assert clock.now <= 1120


def test_a_request_that_stalls_is_told_when_it_fails_again(
    clock: Clock, told: list[tuple[float, str]]
) -> None:
    tries = Patience()
    clock.sleep(20)
    tries.wait("nothing came for 20 s")
    assert told == []
    clock.sleep(2.5)
    tries.wait("no connection within 2.5 s")
    assert [round(seconds) for seconds, _ in told] == [23]


def test_while_others_are_answered_nothing_is_told(clock: Clock, told: list[tuple[float, str]]) -> None:
    unlucky = Patience()
    while unlucky.wait("slow down"):
        Patience().answered()
    assert told == []


def test_the_next_outage_is_told_again_but_not_all_the_time(
    clock: Clock, told: list[tuple[float, str]]
) -> None:
    for _ in range(10):
        tries = Patience()
        clock.sleep(3)
        tries.wait("it is down")
        clock.sleep(3)
        tries.wait("it is down")
        tries.answered()
    assert len(told) == 2
    clock.sleep(100)
    fail(Patience())
    assert len(told) == 3


def test_how_long_a_request_is_tried_can_be_set(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "600")
    fail(Patience())
    assert 1580 < clock.now <= 1600


@pytest.mark.parametrize("value", ["soon", "0", "-1", "inf", "nan"])
def test_what_is_no_time_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, value)
    with pytest.raises(ConfigurationError, match=f"FFAA_STORAGE_PATIENCE is '{value}'"):
        Patience()


def test_a_command_tells_it_on_standard_error(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    fail(Patience())
    assert capsys.readouterr().err.startswith("ffaa: waiting for storage: it is down; ")
