"""A run: a sealed plan, the commits of its shards, and its close. Nothing here waits for or locks anyone."""

import bisect
import hashlib
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ffaa_core.errors import (
    AlreadyExistsError,
    CorruptTableError,
    NotFoundError,
    RunAbandonedError,
    TableError,
)
from ffaa_core.parquet import read_table
from ffaa_core.storage import Store
from ffaa_core.table import commit as commit_rules
from ffaa_core.table import layout, manifest
from ffaa_core.table.known import write_known
from ffaa_core.table.records import ABANDONED, Commit, Counts, Plan, PlanPart, Summary, decode, encode


class Outcome(NamedTuple):
    """The commit a shard has now, and whether the call that asked made it."""

    commit: Commit
    won: bool


class Run:
    """One run of a verdict table. Can be sent to workers; each of them may commit any shard at any time."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self._store = store
        self.plan = plan
        self._part: tuple[PlanPart, pa.Table] | None = None

    def __reduce__(self) -> tuple[type["Run"], tuple[Store, Plan]]:
        return Run, (self._store, self.plan)

    def __repr__(self) -> str:
        return f"Run({self.ordinal} of {self._store.uri!r})"

    @classmethod
    def load(cls, store: Store, ordinal: int) -> "Run":
        """The sealed run of this ordinal.

        Raises:
            NotFoundError: no run of this ordinal is sealed.
        """
        key = layout.plan(ordinal)
        return cls(store, decode(Plan, store.read(key).data, store.uri_of(key)))

    @property
    def ordinal(self) -> int:
        return self.plan.run

    @property
    def fingerprint(self) -> str:
        return self.plan.fingerprint

    @property
    def n_shards(self) -> int:
        return self.plan.n_shards

    @property
    def n_images(self) -> int:
        return self.plan.n_images

    def open_shards(self) -> list[int]:
        """The shards that are neither committed nor abandoned, in order."""
        committed = set(self._committed_shards())
        return [shard for shard in range(self.n_shards) if shard not in committed]

    def plan_rows(self, shard: int) -> pa.Table:
        """The planned images of a shard, in `PLAN_SCHEMA`."""
        rows = self.plan_part(self._part_of(shard))
        return rows.filter(pc.field("shard") == shard)

    def plan_part(self, part: PlanPart) -> pa.Table:
        """One part of the plan, checked against the digest in the seal. The last one read is kept.

        Raises:
            CorruptTableError: the part is missing or is not what was sealed.
        """
        if self._part is None or self._part[0] != part:
            data = self._read(part.file)
            if hashlib.sha256(data).hexdigest() != part.sha256:
                raise CorruptTableError(
                    f"{self._store.uri_of(part.file)} is not the plan part that was sealed"
                )
            self._part = part, read_table(data)
        return self._part[1]

    def commit(self, shard: int, rows: pa.Table, *, writer: str, engine: dict[str, Any]) -> Outcome:
        """Make rows, in `ROW_SCHEMA`, the rows of a shard, unless another writer was first.

        The data file is durable before the marker that names it. Whoever loses leaves its data file behind.

        Args:
            writer: uuid of the worker.
            engine: JSON-ready figures to keep with the commit.

        Raises:
            TornShardError: the rows are not, key by key, the plan's rows of the shard.
            RunAbandonedError: the shard was abandoned before.
        """
        rows = commit_rules.cast_rows(rows)
        commit_rules.check_rows(
            rows, self.plan_rows(shard), run=self.ordinal, fingerprint=self.fingerprint, shard=shard
        )
        file = layout.data_file(self.ordinal, shard, uuid.uuid4().hex)
        with tempfile.TemporaryDirectory(prefix="ffaa-commit-") as folder:
            path = Path(folder, "rows.parquet")
            sha256 = commit_rules.write_data_file(rows, path)
            size_bytes = path.stat().st_size
            self._store.write(file, path)
        mine = Commit(
            run=self.ordinal,
            shard=shard,
            file=file,
            sha256=sha256,
            size_bytes=size_bytes,
            writer=writer,
            counts=commit_rules.count(rows),
            engine=engine,
        )
        key = layout.commit(self.ordinal, shard)
        try:
            self._store.create(key, encode(mine))
        except AlreadyExistsError:
            winner = self.marker(key, self._store.read(key).data)
            if winner.file is None:
                raise RunAbandonedError(
                    f"run {self.ordinal} of {self._store.uri} was abandoned; start the same command again to "
                    "score in a new run what has no row yet"
                ) from None
            return Outcome(winner, winner.file == file)
        return Outcome(mine, True)

    def abandon(self) -> Summary:
        """Give up the shards without a commit, for good, and close the run.

        Each gets a tombstone, to which workers lose who commit later. What an earlier call began that died is
        gone on with; shards that are committed meanwhile keep their rows.

        Returns:
            What the run came to: not abandoned if it was finished and closed meanwhile.
        """
        writer = uuid.uuid4().hex

        def tombstone(shard: int) -> tuple[str, bytes]:
            marker = Commit.tombstone(run=self.ordinal, shard=shard, writer=writer)
            return layout.commit(self.ordinal, shard), encode(marker)

        self._store.create_missing(map(tombstone, self.open_shards()))
        return self.close(ABANDONED)

    def commits(self) -> Iterator[Commit]:
        """The commits there are, tombstones too, by shard: a closed run's from its manifest, else markers."""
        summary = self.summary()
        if summary is None:
            yield from self.markers()
            return
        key = layout.manifest(self.ordinal)
        data = self._read(key)
        if hashlib.sha256(data).hexdigest() != summary.manifest_sha256:
            raise CorruptTableError(f"{self._store.uri_of(key)} is not the manifest that the summary names")
        yield from manifest.decode(data)

    def markers(self) -> Iterator[Commit]:
        """The commits as their markers tell them, whether or not the run is closed."""
        for key, data in self.marker_files():
            yield self.marker(key, data)

    def marker_files(self) -> Iterator[tuple[str, bytes]]:
        """Key and content of whatever lies in the folder of commit markers."""
        keys = [info.key for info in self._store.list(layout.commits(self.ordinal))]
        yield from zip(keys, self._store.read_many(keys), strict=True)

    def marker(self, key: str, data: bytes) -> Commit:
        """The commit that a marker tells.

        Raises:
            CorruptTableError: it is no commit marker, by its name or its content.
        """
        uri, shard = self._store.uri_of(key), layout.shard_of(key)
        commit = decode(Commit, data, uri)
        if (commit.run, commit.shard) != (self.ordinal, shard):
            raise CorruptTableError(f"{uri} says that it is of shard {commit.shard} of run {commit.run}")
        return commit

    def summary(self) -> Summary | None:
        """What the run came to; None while it is open."""
        key = layout.summary(self.ordinal)
        try:
            return decode(Summary, self._store.read(key).data, self._store.uri_of(key))
        except NotFoundError:
            return None

    def close(self, exit_code: int) -> Summary:
        """Write manifest, known rows and summary; whoever comes later gets what the first closer wrote.

        Args:
            exit_code: what the run ends with, unless shards of it were abandoned.

        Raises:
            TableError: a shard has no commit.
        """
        if summary := self.summary():
            return summary
        if missing := len(self.open_shards()):
            raise TableError(
                f"run {self.ordinal} of {self._store.uri} cannot be closed: {missing} of its {self.n_shards} "
                "shards are not committed"
            )
        manifest_key, summary_key = layout.manifest(self.ordinal), layout.summary(self.ordinal)
        self._store.create_missing([(manifest_key, manifest.encode(self.markers()))])
        data = self._read(manifest_key)  # the first closer's
        mine = Summary(
            run=self.ordinal,
            kind=self.plan.kind,
            name=self.plan.name,
            fingerprint=self.fingerprint,
            exit_code=ABANDONED if any(c.file is None for c in manifest.decode(data)) else exit_code,
            n_shards=self.n_shards,
            counts=Counts.total(commit.counts for commit in manifest.decode(data)),
            engine=_sum_numbers(commit.engine for commit in manifest.decode(data)),
            manifest_sha256=hashlib.sha256(data).hexdigest(),
            known_sha256=write_known(self._store, self.ordinal, manifest.decode(data)),
        )
        self._store.create_missing([(summary_key, encode(mine))])
        return decode(Summary, self._read(summary_key), self._store.uri_of(summary_key))

    def _committed_shards(self) -> Iterator[int]:
        for info in self._store.list(layout.commits(self.ordinal)):
            yield layout.shard_of(info.key)

    def _part_of(self, shard: int) -> PlanPart:
        if not 0 <= shard < self.n_shards:
            raise TableError(f"run {self.ordinal} has shards 0 to {self.n_shards - 1}, not {shard}")
        return self.plan.parts[bisect.bisect(self.plan.parts, shard, key=lambda part: part.first_shard) - 1]

    def _read(self, key: str) -> bytes:
        try:
            return self._store.read(key).data
        except NotFoundError as error:
            raise CorruptTableError(
                f"{error}, but run {self.ordinal} of {self._store.uri} needs it"
            ) from error


def _sum_numbers(figures: Iterator[dict[str, Any]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for each in figures:
        for name, value in each.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                total[name] = total.get(name, 0) + value
    return total
