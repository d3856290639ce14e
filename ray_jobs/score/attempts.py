"""How often a shard was tried, and which of its faces was in flight when its process died."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Literal

from ffaa_core.errors import JobError

Stage = Literal["answer", "judge"]

CAREFUL_FROM = 3
"""The attempt from which on a shard's faces go one at a time: before, its deaths may be another's fault."""
DEATHS = 2
"""Deaths at which the face in flight is given up."""
UNEXPLAINED = 10
"""Deaths without a face in flight after which the shard is not tried again."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a shard in one stage.

    `given_up` are the digests of crops on which its process died `DEATHS` times, `unexplained` counts the
    deaths with no face in flight.
    """

    stage: Stage
    shard: int
    number: int
    given_up: frozenset[str]
    unexplained: int

    @property
    def careful(self) -> bool:
        """Whether faces go one at a time, each noted."""
        return self.number >= CAREFUL_FROM

    def require_hope(self) -> None:
        """Raise JobError if the shard's process died too often for no reason that can be left out."""
        if self.unexplained > UNEXPLAINED:
            raise JobError(
                f"shard {self.shard} was given up: the process of its {self.stage} stage died "
                f"{self.unexplained} times with no face in flight. --verbose shows its last words; out of "
                "memory is the usual reason"
            )


class Attempts:
    """Attempts and deaths of every shard, kept where they outlive the stages' processes."""

    def __init__(self) -> None:
        self._begun: Counter[tuple[Stage, int]] = Counter()
        self._in_flight: dict[tuple[Stage, int], str] = {}
        self._deaths: defaultdict[tuple[Stage, int], Counter[str]] = defaultdict(Counter)

    def begin(self, stage: Stage, shard: int) -> Attempt:
        """Count an attempt. A face still noted from the one before was in flight when that one died."""
        key = (stage, shard)
        deaths = self._deaths[key]
        if face := self._in_flight.pop(key, None):
            deaths[face] += 1
        attempt = Attempt(
            stage=stage,
            shard=shard,
            number=self._begun[key] + 1,
            given_up=frozenset(face for face, count in deaths.items() if count >= DEATHS),
            unexplained=self._begun[key] - deaths.total(),
        )
        self._begun[key] += 1
        return attempt

    def note(self, attempt: Attempt, face: str | None) -> None:
        """Say that the crop of this digest is in flight now, and no other of the shard; None for none."""
        key = (attempt.stage, attempt.shard)
        if face is None:
            self._in_flight.pop(key, None)
        else:
            self._in_flight[key] = face
