"""The images scored lately: bounded, expiring, and each its owner's alone."""

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


def test_an_image_is_known_to_its_owner_only() -> None:
    images = memory(Clock())
    image_id = images.remember("owner", VERDICT, [CROP])
    found = images.recall("owner", image_id)
    assert found is not None
    assert (found.verdict, len(found.crops)) == (VERDICT, 1)
    assert images.recall("another", image_id) is None
    assert images.recall("owner", "0" * 32) is None


def test_what_is_kept_is_a_copy() -> None:
    images = memory(Clock())
    found = images.recall("owner", images.remember("owner", VERDICT, [CROP]))
    assert found
    assert np.array_equal(found.crops[0], CROP)
    assert not np.shares_memory(found.crops[0], CROP)


def test_an_image_is_found_by_its_file_if_it_was_scored() -> None:
    images = memory(Clock())
    images.remember("owner", VERDICT, [CROP])
    last = images.remember("owner", VERDICT, [CROP])
    failed = replace(VERDICT, image_sha256="1" * 64, status=Status.ANSWER_FAILED)
    images.remember("owner", failed, [CROP])
    assert images.known("owner", "0" * 64) == last
    assert images.known("owner", "1" * 64) is None
    assert images.known("another", "0" * 64) is None


def test_ids_tell_nothing_of_the_image() -> None:
    images = memory(Clock())
    assert images.remember("owner", VERDICT, [CROP]) != images.remember("owner", VERDICT, [CROP])


def test_an_image_is_forgotten_after_its_time_also_if_nobody_asks() -> None:
    clock = Clock()
    images = memory(clock, memory_seconds=10)
    image_id = images.remember("owner", VERDICT, [CROP])
    clock.now = 9.9
    assert images.recall("owner", image_id)
    clock.now = 10
    images.check_health()
    assert images.size() == (0, 0)
    assert images.recall("owner", image_id) is None


def test_the_oldest_make_room_when_there_are_too_many() -> None:
    images = memory(Clock(), memory_images=2)
    ids = [images.remember("owner", VERDICT, [CROP]) for _ in range(3)]
    assert [images.recall("owner", each) is not None for each in ids] == [False, True, True]


def test_the_oldest_make_room_when_they_take_too_much() -> None:
    images = memory(Clock(), memory_mib=1)
    ids = [images.remember("owner", VERDICT, [CROP]) for _ in range(4)]
    assert [images.recall("owner", each) is not None for each in ids] == [False, True, True, True]
    assert images.size() == (3, 3 * CROP.nbytes)


def test_an_image_that_is_too_large_by_itself_is_not_kept() -> None:
    images = memory(Clock(), memory_mib=1)
    image_id = images.remember("owner", VERDICT, [CROP] * 4)
    assert images.recall("owner", image_id) is None
    assert images.size() == (0, 0)
