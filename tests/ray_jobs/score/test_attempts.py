"""Attempts at a shard: when they become careful, which face is given up, and when all hope is."""

import pytest

from ffaa_core.errors import JobError
from ray_jobs.score.attempts import SICK, UNEXPLAINED, Attempts


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


def test_faces_that_kill_exhaust_neither_their_shard_nor_its_neighbours_on_the_engine() -> None:
    attempts = Attempts()
    attempt = attempts.begin("answer", 0)
    attempts.begin("answer", 1)
    for face in map(str, range(64)):
        for _ in range(2):
            attempts.note(attempt, "harmless")
            attempts.note(attempt, face)
            for neighbour_first in (True, False):
                if neighbour_first == (int(face) % 2 == 0):
                    attempts.begin("answer", 1).require_hope()
                else:
                    attempt = attempts.begin("answer", 0)
                    attempt.require_hope()
    assert len(attempt.given_up) == 64


def test_an_engine_that_dies_of_every_face_ends_the_job() -> None:
    attempts = Attempts()
    for number in range(SICK + 1):
        attempt = attempts.begin("answer", number % 3)
        attempt.require_hope()
        attempts.note(attempt, f"face {number}")
    last = [attempts.begin("answer", number) for number in range(3)][-1]
    with pytest.raises(JobError, match=r"the answer stage does not work: .* 11 times in a row"):
        last.require_hope()


def test_what_a_replaced_attempt_still_says_is_not_heard() -> None:
    attempts = Attempts()
    old = attempts.begin("answer", 0)
    new = attempts.begin("answer", 0)
    attempts.note(new, "in flight")
    attempts.note(old, None)
    attempts.note(old, "another")
    attempts.note(attempts.begin("answer", 0), "in flight")
    assert attempts.begin("answer", 0).given_up == {"in flight"}


def test_deaths_that_no_face_explains_end_the_job() -> None:
    attempts = Attempts()
    for _ in range(UNEXPLAINED + 1):
        attempts.begin("answer", 3).require_hope()
    with pytest.raises(JobError, match=r"shard 3 was given up: its process died 11 times"):
        attempts.begin("answer", 3).require_hope()
