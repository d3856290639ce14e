"""The verdict table: opening it, planning the next run, and reading its rows."""

import contextlib
import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from ffaa_core.errors import (
    AlreadyExistsError,
    NotFoundError,
    RunConflictError,
    TableError,
)
from ffaa_core.storage import Store, open_store
from ffaa_core.table import layout
from ffaa_core.table.plan import (
    SHARD_BYTES,
    SHARD_SIZE,
    Head,
    PlannedImage,
    ShardLimits,
    load_known,
    load_listing,
    unsettled,
    write_parts,
)
from ffaa_core.table.reader import read_known, read_rows
from ffaa_core.table.records import FORMAT, FORMAT_VERSION, Marker, Plan, decode, encode
from ffaa_core.table.run import Run
from ffaa_core.table.scratch import Scratch, scratch
from ffaa_core.table.sealed import load_run, sealed_ordinals
from ffaa_core.verdict import Status


class VerdictTable:
    """A verdict table in a store. `open` gives one by its URI.

    Objects that can be created only once decide every race, so there is no lock, leader, database or clock.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    def open(cls, uri: str, *, create: bool = False) -> "VerdictTable":
        """The table below a local folder or an S3 prefix.

        Args:
            create: make it one if there is nothing yet.

        Raises:
            TableError: there is none, there is something else, or a later version wrote it.
        """
        return cls.on(open_store(uri), create=create)

    @classmethod
    def on(cls, store: Store, *, create: bool = False) -> "VerdictTable":
        """As `open`, in a store one has."""
        table = cls(store)
        table._check_marker(create)
        return table

    @classmethod
    def exists(cls, uri: str) -> bool:
        """Whether there is a table at `uri` already."""
        return open_store(uri).exists(layout.MARKER)

    @property
    def uri(self) -> str:
        return self.store.uri

    def runs(self) -> list[Run]:
        """The sealed runs, by ordinal.

        Raises:
            CorruptTableError: a run has lost its seal.
        """
        return [load_run(self.store, ordinal) for ordinal in sealed_ordinals(self.store)]

    def open_run(self) -> Run | None:
        """The run that is not closed yet, if there is one."""
        last = self._last_run()
        return last if last and last.summary() is None else None

    def rows(
        self,
        *,
        latest: bool = True,
        fingerprint: str | None = None,
        columns: Sequence[str] | None = None,
        statuses: Collection[str] | None = None,
        verdicts: Collection[str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Committed rows, streamed; a run that is going on shows the shards it has committed, whole.

        Args:
            latest: of several rows of an image under one fingerprint only the one that counts: settled beats
                transient, then the later run.
            fingerprint: only rows under this one.
            columns: only these, or paths into nested ones such as `faces.list.element.box`.
            statuses, verdicts: only rows with one of these.
        """
        runs = [run for run in self.runs() if fingerprint in (None, run.fingerprint)]
        return read_rows(
            self.store, runs, latest=latest, columns=columns, statuses=statuses, verdicts=verdicts
        )

    def plan(
        self,
        images: Iterable[PlannedImage],
        *,
        fingerprint: str,
        settings: dict[str, Any],
        kind: str = "score",
        name: str | None = None,
        shard_size: int = SHARD_SIZE,
        shard_bytes: int = SHARD_BYTES,
        retry: Collection[Status] = (),
        max_images: int | None = None,
    ) -> Run | None:
        """The run to work on: the open one, or a new one over the images that are not settled yet.

        Args:
            images: the listing, read only when a new run is planned, and once. Repeated URIs count once.
            fingerprint: images settled under it, at the listed version, are left out.
            settings: JSON-ready; an open run is continued only under the same ones.
            kind: the job, such as `score`.
            name: the user's name of the run. There is nothing to do when the last run has it, under the same
                fingerprint, and is finished.
            shard_size, shard_bytes: the most images and bytes of a shard.
            retry: statuses planned again whatever the number of attempts.
            max_images: plan only the first so many, by URI; the seal says how many are left.

        Returns:
            None when there is nothing to do.

        Raises:
            RunConflictError: a run with other settings is open.
        """
        intent = Plan(
            run=0,
            kind=kind,
            name=name,
            fingerprint=fingerprint,
            settings=json.loads(json.dumps(settings)),
            planner=uuid.uuid4().hex,
            n_shards=0,
            n_images=0,
            parts=(),
        )
        limits = ShardLimits(images=shard_size, bytes=shard_bytes)
        last, listed = self._last_run(), False
        with scratch() as place:
            while True:
                if last is not None:
                    summary = last.summary()
                    if summary is None:
                        return self._adopt(last, intent)
                    same = name is not None and last.plan.name == name and _way(last.plan) == _way(intent)
                    if same and not summary.abandoned:
                        return None
                if not listed:
                    load_listing(place, images)
                    listed = True
                sealed = self._seal_next(place, last, intent, limits, retry, max_images)
                if sealed is None or sealed.plan.planner == intent.planner:
                    return sealed
                last = sealed

    def _seal_next(
        self,
        place: Scratch,
        last: Run | None,
        intent: Plan,
        limits: ShardLimits,
        retry: Collection[Status],
        max_images: int | None,
    ) -> Run | None:
        """Seal the run after `last`, which is closed, or find who did; None if every image is settled.

        That the ordinal was free until now proves that no run came between the rows read and the seal.
        """
        ordinal = last.ordinal + 1 if last else 1
        known = [run for run in self.runs()[: ordinal - 1] if run.fingerprint == intent.fingerprint]
        load_known(place, read_known(self.store, known))
        images = Head(unsettled(place, retry), max_images)
        parts = write_parts(self.store, ordinal, intent.planner, images, limits)
        if not parts:
            return None
        plan = Plan(
            run=ordinal,
            kind=intent.kind,
            name=intent.name,
            fingerprint=intent.fingerprint,
            settings=intent.settings,
            planner=intent.planner,
            n_shards=sum(part.n_shards for part in parts),
            n_images=sum(part.n_images for part in parts),
            parts=parts,
            n_left=images.n_left,
        )
        try:
            self.store.create(layout.plan(ordinal), encode(plan))
        except AlreadyExistsError:
            return Run.load(self.store, ordinal)
        return Run(self.store, plan)

    def _adopt(self, run: Run, intent: Plan) -> Run:
        was, now = _way(run.plan), _way(intent)
        differing = [
            f"{name}: was {was.get(name)}, is {now.get(name)}"
            for name in {**was, **now}
            if was.get(name) != now.get(name)
        ]
        if not differing:
            return run
        named = f" ({run.plan.name})" if run.plan.name else ""
        raise RunConflictError(
            f"run {run.ordinal}{named} is open on {self.uri} with other settings ({'; '.join(differing)}). "
            "Finish it with the command that began it, give up what is left of it with `ffaa table abandon "
            f"{self.uri}`, or give another OUTPUT"
        )

    def _last_run(self) -> Run | None:
        sealed = sealed_ordinals(self.store)
        return load_run(self.store, sealed[-1]) if sealed else None

    def _check_marker(self, create: bool) -> None:
        uri = self.store.uri_of(layout.MARKER)
        advice = "give an empty or new OUTPUT" if create else "name the folder that `ffaa score` wrote to"
        marker = self._read_marker()
        if marker is None:
            occupied = next((i for i in self.store.list() if not i.key.startswith(layout.PROBES)), None)
            marker = self._read_marker()  # whoever filled the folder since may have made it a table
            if marker is None and occupied is not None:
                raise TableError(
                    f"{self.uri} is no verdict table: it has no {layout.MARKER} but holds {occupied.key!r}; "
                    f"{advice}"
                )
        if marker is None:
            if not create:
                raise TableError(f"there is no verdict table at {self.uri}: {uri} does not exist; {advice}")
            with contextlib.suppress(AlreadyExistsError):
                self.store.create(layout.MARKER, encode(Marker(format=FORMAT, version=FORMAT_VERSION)))
            marker = decode(Marker, self.store.read(layout.MARKER).data, uri)
        if marker.format != FORMAT or marker.version > FORMAT_VERSION:
            raise TableError(
                f"{uri} says {marker.format} version {marker.version}; this program reads {FORMAT} up to "
                f"version {FORMAT_VERSION}"
            )

    def _read_marker(self) -> Marker | None:
        try:
            data = self.store.read(layout.MARKER).data
        except NotFoundError:
            return None
        return decode(Marker, data, self.store.uri_of(layout.MARKER))


def _way(plan: Plan) -> dict[str, Any]:
    """What an open run is continued under: its kind and fingerprint, and its settings by dotted name."""
    return {"kind": plan.kind, "fingerprint": plan.fingerprint, **dict(_flat(plan.settings))}


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
