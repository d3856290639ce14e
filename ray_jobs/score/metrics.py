"""What a run tells Prometheus, under names with `ray_` before them, at the metrics port of the driver's node.

Counters stay there after the command, until the node goes; the gauge does not. docs/metrics.md explains them.
"""

from collections.abc import Mapping
from typing import Any


class RunMetrics:
    """The metrics of one run, told by its driver. Made while Ray runs.

    Args:
        n_committed: shards that are committed already.
        n_open: shards to do.
        actors: how many hold each model.
    """

    def __init__(self, n_committed: int, n_open: int, actors: Mapping[str, int]) -> None:
        from ray.util.metrics import Counter, Gauge

        self._images = Counter("ffaa_batch_images_total", "Images committed, by status.", ("status",))
        self._faces = Counter("ffaa_batch_faces_total", "Faces in committed images.")
        self._tokens = Counter(
            "ffaa_batch_tokens_total",
            "Tokens of committed faces' requests: of prompts, computed or cached, and generated.",
            ("kind",),
        )
        self._restarts = Counter("ffaa_batch_restarts_total", "Actors that were started again.", ("model",))
        self._ended = Counter("ffaa_batch_ended_total", "Commands that ended, by exit code.", ("exit_code",))
        self._shards = Gauge("ffaa_batch_shards", "Shards of the run, open and committed.", ("state",))
        self._n_committed, self._n_open = n_committed, n_open
        self._loads = dict(actors)
        self._tell_shards()

    def committed(self, *, won: bool, counts: Mapping[str, Any], engine: Mapping[str, Any]) -> None:
        """A shard is committed.

        Args:
            won: this run's driver had it committed, and no other, who counts it already.
            counts: the commit's, as a mapping.
            engine: its engine figures.
        """
        self._n_open, self._n_committed = self._n_open - 1, self._n_committed + 1
        self._tell_shards()
        if not won:
            return
        for status, count in counts["statuses"].items():
            self._add(self._images, count, {"status": status})
        self._add(self._faces, counts["faces"])
        cached = engine["cached_tokens"]
        self._add(self._tokens, engine["prompt_tokens"] - cached, {"kind": "prompt_computed"})
        self._add(self._tokens, cached, {"kind": "prompt_cached"})
        self._add(self._tokens, engine["generated_tokens"], {"kind": "generated"})

    def loads(self, model: str, total: int) -> None:
        """So many times a process has begun to load this model, in all: more than there are actors."""
        if total > self._loads[model]:
            self._restarts.inc(total - self._loads[model], {"model": model})
            self._loads[model] = total

    def ended(self, exit_code: int) -> None:
        """The command ends so. Nothing may be told after it."""
        self._ended.inc(1, {"exit_code": str(exit_code)})

    def _tell_shards(self) -> None:
        self._shards.set(self._n_open, {"state": "open"})
        self._shards.set(self._n_committed, {"state": "committed"})

    def _add(self, counter: Any, count: int, tags: dict[str, str] | None = None) -> None:
        if count:  # Ray takes no zero
            counter.inc(count, tags)
