"""The images scored lately: bounded, expiring, and each its owner's alone."""

import inspect
from dataclasses import replace

import numpy as np

from ffaa_core.verdict import ImageVerdict, Status
from serve.config import ServiceSettings
from serve.memory import Memory

CROP = np.zeros((336, 336, 3), np.uint8)
VERDICT = ImageVerdict(image_sha256="0" * 64, image_bytes=1, status=Status.SCORED)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def memory(clock: Clock, **settings: float) -> Memory:
    return Memory(ServiceSettings(**settings), clock)  # type: ignore[arg-type]


async def test_an_image_is_known_to_its_owner_only() -> None:
    images = memory(Clock())
    image_id = await images.remember("owner", VERDICT, [CROP])
    found = await images.recall("owner", image_id)
    assert found is not None
    assert (found.verdict, len(found.crops)) == (VERDICT, 1)
    assert await images.recall("another", image_id) is None
    assert await images.recall("owner", "0" * 32) is None


async def test_what_is_kept_is_a_copy() -> None:
    images = memory(Clock())
    found = await images.recall("owner", await images.remember("owner", VERDICT, [CROP]))
    assert found
    assert np.array_equal(found.crops[0], CROP)
    assert not np.shares_memory(found.crops[0], CROP)


async def test_an_image_is_found_by_its_file_if_it_was_scored() -> None:
    images = memory(Clock())
    await images.remember("owner", VERDICT, [CROP])
    last = await images.remember("owner", VERDICT, [CROP])
    failed = replace(VERDICT, image_sha256="1" * 64, status=Status.ANSWER_FAILED)
    await images.remember("owner", failed, [CROP])
    assert await images.known("owner", "0" * 64) == last
    assert await images.known("owner", "1" * 64) is None
    assert await images.known("another", "0" * 64) is None


async def test_ids_tell_nothing_of_the_image() -> None:
    images = memory(Clock())
    assert await images.remember("owner", VERDICT, [CROP]) != await images.remember("owner", VERDICT, [CROP])


async def test_an_image_is_forgotten_after_its_time_also_if_nobody_asks() -> None:
    clock = Clock()
    images = memory(clock, memory_seconds=10)
    image_id = await images.remember("owner", VERDICT, [CROP])
    clock.now = 9.9
    assert await images.recall("owner", image_id)
    clock.now = 10
    await images.check_health()
    assert await images.size() == (0, 0)
    assert await images.recall("owner", image_id) is None


async def test_the_oldest_make_room_when_there_are_too_many() -> None:
    images = memory(Clock(), memory_images=2)
    ids = [await images.remember("owner", VERDICT, [CROP]) for _ in range(3)]
    assert [await images.recall("owner", each) is not None for each in ids] == [False, True, True]


async def test_the_oldest_make_room_when_they_take_too_much() -> None:
    images = memory(Clock(), memory_mib=1)
    ids = [await images.remember("owner", VERDICT, [CROP]) for _ in range(4)]
    assert [await images.recall("owner", each) is not None for each in ids] == [False, True, True, True]
    assert await images.size() == (3, 3 * CROP.nbytes)


async def test_an_image_that_is_too_large_by_itself_is_not_kept() -> None:
    images = memory(Clock(), memory_mib=1)
    image_id = await images.remember("owner", VERDICT, [CROP] * 4)
    assert await images.recall("owner", image_id) is None
    assert await images.size() == (0, 0)


def test_one_call_of_it_runs_after_the_other() -> None:
    """Of methods that are no coroutines Ray Serve runs several at once, in threads."""
    methods = [method for name, method in inspect.getmembers(Memory, inspect.isfunction) if name[0] != "_"]
    assert methods
    assert all(inspect.iscoroutinefunction(method) for method in methods)
