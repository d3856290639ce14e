"""What a gateway knows of images over which the engine died."""

from serve import suspects
from serve.suspects import Suspects


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_suspect_is_known_until_it_is_answered() -> None:
    known = Suspects()
    known.suspect("a")
    assert "a" in known
    assert not known.is_convicted("a")
    assert "b" not in known
    known.acquit("a")
    assert "a" not in known


def test_what_is_known_is_forgotten_in_time() -> None:
    clock = Clock()
    known = Suspects(clock)
    known.suspect("a")
    known.convict("b")
    clock.now = suspects.REMEMBERED_S / 2
    known.convict("a")
    clock.now = suspects.REMEMBERED_S
    assert known.is_convicted("a")
    assert "b" not in known


def test_of_very_many_the_oldest_are_forgotten() -> None:
    known = Suspects()
    for number in range(suspects.REMEMBERED + 1):
        known.suspect(str(number))
    assert "0" not in known
    assert "1" in known


def test_what_has_no_name_is_never_suspect() -> None:
    known = Suspects()
    known.suspect(None)
    assert None not in known
