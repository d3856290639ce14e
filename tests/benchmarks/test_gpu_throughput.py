"""How a rate on a GPU is taken; `python -m benchmarks.gpu_throughput` takes it."""

import asyncio

import pytest

from benchmarks.gpu_throughput import _steady, lengths_of, rate


async def test_so_many_faces_are_asked_about_at_once_and_each_is_told_once() -> None:
    asked, told, most = set[int](), list[int](), 0

    async def ask(face: int) -> int:
        nonlocal most
        asked.add(face)
        most = max(most, len(asked))
        await asyncio.sleep(0)
        asked.remove(face)
        return 3

    found = await rate(ask, range(100, 140), 4, told.append)
    assert (most, found["at_once"], found["faces"]) == (4, 4, 40)
    assert sorted(told) == list(range(100, 140))


def test_neither_a_slow_start_nor_a_slow_end_is_in_the_rate() -> None:
    ended = [50.0, 90.0, 100.0, 101.0, 102.0, 103.0, 150.0, 200.0]
    found = _steady(ended, [600] * len(ended))
    assert found == {"faces_per_s": pytest.approx(4 / 50), "tokens_per_s": pytest.approx(4 * 600 / 50)}


def test_answers_are_as_long_in_the_mean_as_the_published_model_s() -> None:
    lengths = [length for face in range(1000) for length in lengths_of(face)]
    assert abs(sum(lengths) / len(lengths) - 203) < 5
