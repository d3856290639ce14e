"""What the stages have done so far, and why one failed, gathered in one small actor that the driver reads."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

from ffaa_core.errors import FFAAError
from ffaa_core.storage.patience import tell_waits_to
from ray_jobs.score.attempts import Attempt, Attempts, Stage
from ray_jobs.score.whereabouts import Model, Step, Whereabouts, this_process

if TYPE_CHECKING:
    from ray.actor import ActorHandle

Measure = Literal[
    "faces found", "faces answered", "images answered", "shards lost", "engine loads", "MIDS loads"
]
"""`shards lost` are those that another process committed first."""


class Progress(Whereabouts):
    """Counts per measure, and knows where every shard is. A shard that is tried again replaces its former
    counts, so nothing is counted twice.

    Runs as a Ray actor: stages call `report`, the driver calls `totals`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._by_shard: defaultdict[Measure, dict[int, int]] = defaultdict(dict)
        self._totals: Counter[Measure] = Counter()
        self._attempts = Attempts()
        self._failure: FFAAError | None = None

    def report(self, shard: int, measure: Measure, count: int) -> None:
        """Set how much of `measure` the shard has reached."""
        former = self._by_shard[measure].get(shard, 0)
        self._by_shard[measure][shard] = count
        self._totals[measure] += count - former
        self.move()

    def load(self, model: Model, process: str) -> None:
        """Note that a process begins to load its model."""
        super().load(model, process)
        self._totals["engine loads" if model == "engine" else "MIDS loads"] += 1

    def totals(self) -> dict[Measure, int]:
        """The sum over all shards, by measure."""
        return dict(self._totals)

    def begin(self, stage: Stage, shard: int) -> Attempt:
        """See `Attempts.begin`."""
        return self._attempts.begin(stage, shard)

    def note(self, attempt: Attempt, face: str | None) -> None:
        """See `Attempts.note`."""
        self._attempts.note(attempt, face)

    def fail(self, error: FFAAError) -> None:
        """Keep the first error that ended a stage."""
        self._failure = self._failure or error

    def failure(self) -> FFAAError | None:
        """The error that ended a stage, if one did."""
        return self._failure


TELLING_S = 10
"""How long the actor is waited for when a job has failed, of which it may be the reason."""


def start_progress() -> Any:
    """Start the actor, on the driver's own node: it ends when the driver does, and with no other node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Progress).options(num_cpus=0, scheduling_strategy=here).remote()


def told_failure(progress: "ActorHandle[Progress]") -> FFAAError | None:
    """The error that ended a stage, if one did and was told."""
    import ray

    with suppress(ray.exceptions.RayError):
        failure: FFAAError | None = ray.get(  # type: ignore[assignment]
            progress.failure.remote(), timeout=TELLING_S
        )
        return failure
    return None


def begin(progress: "ActorHandle[Progress]", stage: Stage, shard: int) -> Attempt:
    """Begin an attempt at a shard.

    Raises:
        JobError: its process died too often for no reason that can be left out.
    """
    import ray

    attempt: Attempt = ray.get(progress.begin.remote(stage, shard))  # type: ignore[assignment]
    attempt.require_hope()
    return attempt


def enter(progress: "ActorHandle[Progress]", shard: int, step: Step) -> bool:
    """Note that a shard has come to a step in this process; False if it must not begin it."""
    import ray

    return bool(ray.get(progress.enter.remote(shard, step, this_process())))


@contextmanager
def loading(progress: "ActorHandle[Progress]", model: Model) -> Iterator[None]:
    """Note that this process loads a model in the block."""
    process = this_process()
    progress.load.remote(model, process)
    yield
    progress.loaded.remote(model, process)


@contextmanager
def failures_told(progress: "ActorHandle[Progress]") -> Iterator[None]:
    """Hand an error of ours to the driver as it is: Ray's own exceptions carry it as text only.

    That this process waits for storage is told there, too: nobody reads what it prints.
    """
    import ray

    tell_waits_to(lambda line: progress.wait.remote(line, this_process()))
    try:
        yield
    except FFAAError as error:
        with suppress(ray.exceptions.RayError):
            ray.get(progress.fail.remote(error))
        raise
