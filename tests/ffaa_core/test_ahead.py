"""Calls made before their results are wanted."""

import threading

import pytest

from ffaa_core.ahead import AHEAD, WORKERS, ahead


def test_results_come_in_order_and_calls_are_made_beside_each_other() -> None:
    all_at_work = threading.Barrier(WORKERS)

    def call(number: int) -> int:
        if number < WORKERS:
            all_at_work.wait(60)
        return -number

    assert list(ahead(call, range(200))) == [-number for number in range(200)]


@pytest.mark.parametrize("most", [1, 7, AHEAD])
def test_no_more_is_begun_than_may_be_held(most: int) -> None:
    taken: list[int] = []
    results = ahead(taken.append, range(1000), most)
    for _ in range(3):
        next(results)
    results.close()
    assert len(taken) <= most + 3


def test_what_a_call_raises_comes_in_its_turn() -> None:
    results = ahead(lambda number: 1 // number, [1, 1, 0, 1])
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
