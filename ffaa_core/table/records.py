"""The JSON records of a verdict table, checked when they are read."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ffaa_core.errors import CorruptTableError, RunAbandonedError

FORMAT = "ffaa-verdict-table"
FORMAT_VERSION = 1

ABANDONED = RunAbandonedError.exit_code
"""Exit code of a run that was abandoned: what has no row is for another run to score."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Marker:
    """Says of a folder or prefix that it is a verdict table, and in which version."""

    format: str
    version: int


@dataclass(frozen=True, kw_only=True)
class PlanPart:
    """One file of a plan: the images of `n_shards` shards from `first_shard` on."""

    file: str
    sha256: str
    first_shard: int
    n_shards: int
    n_images: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The seal of a run: what is to be done, under which settings, and where the images are named.

    `kind` is the job the run belongs to, `name` the user's (`--run`), `planner` the uuid of who sealed it.
    `n_left` images were to be done and are left to later runs, since the user asked for no more.
    """

    run: int
    kind: str
    name: str | None
    fingerprint: str
    settings: dict[str, Any]
    planner: str
    n_shards: int
    n_images: int
    parts: tuple[PlanPart, ...]
    n_left: int = 0


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of images, in all, by status and by verdict, of contested ones, and of faces."""

    images: int
    statuses: dict[str, int]
    verdicts: dict[str, int]
    contested: int
    faces: int

    @classmethod
    def total(cls, counts: Iterable["Counts"]) -> Self:
        """The sum over shards."""
        statuses: Counter[str] = Counter()
        verdicts: Counter[str] = Counter()
        images = contested = faces = 0
        for each in counts:
            statuses.update(each.statuses)
            verdicts.update(each.verdicts)
            images, contested, faces = images + each.images, contested + each.contested, faces + each.faces
        return cls(
            images=images,
            statuses=dict(sorted(statuses.items())),
            verdicts=dict(sorted(verdicts.items())),
            contested=contested,
            faces=faces,
        )


@dataclass(frozen=True, kw_only=True)
class Commit:
    """The commit marker of a shard: the data file that holds its rows, and what is in it.

    `writer` is the uuid of the worker; `engine` its figures for the shard, such as tokens and seconds.
    A tombstone names no file: the shard was abandoned and never gets rows in this run.
    """

    run: int
    shard: int
    file: str | None
    sha256: str | None
    size_bytes: int
    writer: str
    counts: Counts
    engine: dict[str, Any]

    @classmethod
    def tombstone(cls, *, run: int, shard: int, writer: str) -> Self:
        """The marker of an abandoned shard; `writer` is the uuid of who abandoned it."""
        return cls(
            run=run,
            shard=shard,
            file=None,
            sha256=None,
            size_bytes=0,
            writer=writer,
            counts=Counts.total(()),
            engine={},
        )


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a closed run came to. `engine` sums the numbers among the commits' engine figures.

    `known_sha256` names its known rows; a run that an older version closed has none.
    The exit code is `ABANDONED` if nobody finished the run.
    """

    run: int
    kind: str
    name: str | None
    fingerprint: str
    exit_code: int
    n_shards: int
    counts: Counts
    engine: dict[str, float]
    manifest_sha256: str
    known_sha256: str | None = None

    @property
    def abandoned(self) -> bool:
        return self.exit_code == ABANDONED


def encode(record: object) -> bytes:
    """A record as JSON, one line, in the order of its fields."""
    return TypeAdapter(type(record)).dump_json(record) + b"\n"


def decode(kind: type[T], data: bytes, uri: str) -> T:
    """Read a record back.

    Raises:
        CorruptTableError: it is not JSON, or misses or mistypes a field.
    """
    try:
        return TypeAdapter(kind).validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        where = "".join(f"{part}: " for part in problem["loc"])
        raise CorruptTableError(f"{uri} is no {kind.__name__.lower()}: {where}{problem['msg']}") from None
