"""Attempts at a shard: when they become careful, which face is given up, and when all hope is."""

import pytest

from ffaa_core.errors import JobError
from ray_jobs.score.attempts import UNEXPLAINED, Attempts


def test_the_third_attempt_is_the_first_careful_one() -> None:
    attempts = Attempts()
    assert [attempts.begin("answer", 7).careful for _ in range(4)] == [False, False, True, True]
    assert not attempts.begin("judge", 7).careful
    assert not attempts.begin("answer", 8).careful


def test_a_face_in_flight_at_two_deaths_is_given_up_and_no_other() -> None:
    attempts = Attempts()
    attempt = attempts.begin("answer", 0)
    for face in ("good", "deadly"):
        attempts.note(attempt, face)
    attempt = attempts.begin("answer", 0)
    assert attempt.given_up == frozenset()
    attempts.note(attempt, "deadly")
    assert attempts.begin("answer", 0).given_up == {"deadly"}
    assert attempts.begin("answer", 0).given_up == {"deadly"}


def test_a_shard_that_was_done_counts_no_death_when_it_is_done_again() -> None:
    attempts = Attempts()
    for _ in range(3):
        attempt = attempts.begin("judge", 0)
        attempts.note(attempt, "last")
        attempts.note(attempt, None)
    assert attempts.begin("judge", 0).given_up == frozenset()


def test_faces_that_kill_never_exhaust_a_shard() -> None:
    attempts = Attempts()
    attempt = attempts.begin("answer", 0)
    for face in map(str, range(64)):
        for _ in range(2):
            attempts.note(attempt, face)
            attempt = attempts.begin("answer", 0)
            attempt.require_hope()
    assert len(attempt.given_up) == 64


def test_deaths_that_no_face_explains_end_the_job() -> None:
    attempts = Attempts()
    for _ in range(UNEXPLAINED + 1):
        attempts.begin("answer", 3).require_hope()
    with pytest.raises(JobError, match=r"shard 3 .* answer stage died 11 times with no face in flight"):
        attempts.begin("answer", 3).require_hope()
