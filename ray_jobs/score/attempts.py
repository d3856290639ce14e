"""How often a shard was tried, and which of its faces was in flight when its process died."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Literal

from ffaa_core.errors import JobError

Stage = Literal["answer", "judge"]
Key = tuple[Stage, int]

CAREFUL_FROM = 3
"""The attempt from which on a shard's faces go one at a time: before, its deaths may be another's fault."""
DEATHS = 2
"""Deaths at which the face in flight is given up."""
UNEXPLAINED = 10
"""Deaths that no face in flight explains after which the shard is not tried again."""
SICK = 10
"""Deaths in a row, with no face done in between, after which it is the stage's fault and not its faces'."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a shard in one stage.

    `given_up` are the digests of crops on which its process died `DEATHS` times, `unexplained` counts the
    deaths that no face in flight explains, `in_a_row` the stage's deaths since a face was done.
    """

    stage: Stage
    shard: int
    number: int
    given_up: frozenset[str]
    unexplained: int
    in_a_row: int

    @property
    def careful(self) -> bool:
        """Whether faces go one at a time, each noted."""
        return self.number >= CAREFUL_FROM

    def require_hope(self) -> None:
        """Raise JobError if processes died too often to be the fault of a face that can be left out."""
        if self.unexplained > UNEXPLAINED:
            told = f"shard {self.shard} was given up: its process died {self.unexplained} times"
        elif self.in_a_row > SICK:
            told = f"its process died {self.in_a_row} times in a row, whatever face was its turn"
        else:
            return
        raise JobError(
            f"the {self.stage} stage does not work: {told}. --verbose shows its last words; too little "
            "memory or a broken GPU is the usual reason"
        )


class Attempts:
    """Attempts and deaths of every shard, kept where they outlive the stages' processes."""

    def __init__(self) -> None:
        self._begun: Counter[Key] = Counter()
        self._in_flight: dict[Key, str] = {}
        self._deaths: defaultdict[Key, Counter[str]] = defaultdict(Counter)
        self._unexplained: Counter[Key] = Counter()
        self._explained: Counter[Stage] = Counter()
        self._explained_before: dict[Key, int] = {}
        self._in_a_row: Counter[Stage] = Counter()

    def begin(self, stage: Stage, shard: int) -> Attempt:
        """Count an attempt. A face still noted from the one before was in flight when that one died.

        A process that dies takes all its shards along: a shard's death is explained, too, by a face of
        another one.
        """
        key = (stage, shard)
        deaths = self._deaths[key]
        if face := self._in_flight.pop(key, None):
            deaths[face] += 1
            self._explained[stage] += 1
            self._in_a_row[stage] += 1
        elif self._begun[key] and not self._is_explained_elsewhere(key):
            self._unexplained[key] += 1
        self._begun[key] += 1
        self._explained_before[key] = self._explained[stage]
        return Attempt(
            stage=stage,
            shard=shard,
            number=self._begun[key],
            given_up=frozenset(face for face, count in deaths.items() if count >= DEATHS),
            unexplained=self._unexplained[key],
            in_a_row=self._in_a_row[stage],
        )

    def note(self, attempt: Attempt, face: str | None) -> None:
        """Say that the crop of this digest is in flight now, and no other of the shard; None for none.

        An attempt that another has followed has nothing to say any more.
        """
        key = (attempt.stage, attempt.shard)
        if attempt.number != self._begun[key]:
            return
        former = self._in_flight.pop(key, None)
        if former is not None and former != face:
            self._in_a_row[attempt.stage] = 0
        if face is not None:
            self._in_flight[key] = face

    def _is_explained_elsewhere(self, key: Key) -> bool:
        stage, _ = key
        return self._explained[stage] > self._explained_before[key] or any(
            of == stage for of, _ in self._in_flight
        )
