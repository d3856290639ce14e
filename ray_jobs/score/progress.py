"""What the stages have done so far, gathered in one small actor that the driver reads."""

from collections import Counter, defaultdict
from typing import Literal

Measure = Literal["faces found", "faces answered", "images answered"]


class Progress:
    """Counts per measure. A shard that is tried again replaces its former counts, so nothing is counted
    twice.

    Runs as a Ray actor: stages call `report`, the driver calls `totals`.
    """

    def __init__(self) -> None:
        self._by_shard: defaultdict[Measure, dict[int, int]] = defaultdict(dict)
        self._totals: Counter[Measure] = Counter()

    def report(self, shard: int, measure: Measure, count: int) -> None:
        """Set how much of `measure` the shard has reached."""
        former = self._by_shard[measure].get(shard, 0)
        self._by_shard[measure][shard] = count
        self._totals[measure] += count - former

    def totals(self) -> dict[Measure, int]:
        """The sum over all shards, by measure."""
        return dict(self._totals)
