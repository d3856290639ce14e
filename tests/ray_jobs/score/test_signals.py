"""Handling SIGTERM and SIGINT."""

import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from ffaa_core.errors import JobError
from ray_jobs.score import signals
from ray_jobs.score.signals import SIGNALS, stop_requests


@pytest.fixture
def each_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two signals are two requests, however soon one follows the other."""
    monkeypatch.setattr(signals, "SAME_S", 0)


@pytest.mark.parametrize("number", SIGNALS)
def test_without_patience_a_signal_raises_at_once(number: signal.Signals) -> None:
    with stop_requests(patient=False):
        with pytest.raises(JobError, match=f"stopped by {number.name}; the same command") as ended:
            signal.raise_signal(number)
        assert ended.value.exit_code == 75


@pytest.mark.parametrize("number", SIGNALS)
def test_with_patience_the_first_signal_is_noted_and_the_second_raises(
    number: signal.Signals, each_counts: None
) -> None:
    with stop_requests(patient=True) as request:
        assert request.received is None
        signal.raise_signal(number)
        assert request.received == number.name
        with pytest.raises(JobError, match="stopped by SIGTERM"):
            signal.raise_signal(signal.SIGTERM)


def test_a_third_signal_kills() -> None:
    deeds = """
from contextlib import suppress
from signal import SIGTERM, raise_signal
from ffaa_core.errors import JobError
from ray_jobs.score import signals
signals.SAME_S = 0
with signals.stop_requests(patient=True):
    raise_signal(SIGTERM)
    with suppress(JobError):
        raise_signal(SIGTERM)
    print("lives", flush=True)
    raise_signal(SIGTERM)
"""
    ended = subprocess.run([sys.executable, "-c", deeds], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("lives\n", -signal.SIGTERM)


@pytest.mark.parametrize("patient", [True, False])
def test_a_signal_that_arrives_twice_at_once_is_one_request(patient: bool) -> None:
    with stop_requests(patient=patient) as request:
        with suppress(JobError):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert request.received == "SIGTERM"


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_requests(patient=True):
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_the_exit_by_which_ray_answers_sigterm_is_a_stop() -> None:
    with pytest.raises(JobError, match="stopped by SIGTERM"), stop_requests(patient=False):
        sys.exit(15)
