"""Whether OUTPUT can hold a verdict table: its verbs work, and one creator wins."""

import shutil
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from ffaa_core.errors import AlreadyExistsError, ConfigurationError, StorageError
from ffaa_core.storage import Store, open_store
from ffaa_core.table import layout
from ray_jobs.doctor.finding import Finding, error, ok, warning

CREATORS = 8
RACES = 5
LEAST_FREE_BYTES = 4 << 30

CHECK, RACE = "output", "race"
USE_ANOTHER = "this storage cannot hold a verdict table: use a local disk, AWS S3 or Ceph"


class Probes:
    """A place in OUTPUT for objects that nobody else uses, and that is cleared at the end."""

    def __init__(self, output_uri: str) -> None:
        self.store = open_store(output_uri)
        self.prefix = f"{layout.PROBES}{uuid.uuid4().hex}/"
        self.object = f"{self.prefix}object"
        self.deletable = True
        """Whether objects can be deleted here; where they cannot, `object` is the only one ever written."""

    @property
    def uri(self) -> str:
        """The place's address."""
        return self.store.uri_of(self.prefix.rstrip("/"))

    @property
    def table_uri(self) -> str:
        """A place within for a verdict table."""
        return f"{self.uri}/table"

    def clear(self) -> None:
        """Delete what was written here."""
        if self.deletable:
            for listed in list(self.store.list(self.prefix)):
                self.store.delete(listed.key)


@contextmanager
def probes(output_uri: str) -> Iterator[Probes]:
    """A place for probes, which leaves nothing in OUTPUT, on a local disk no empty folders either."""
    place = Probes(output_uri)
    made = _missing_folders(place)
    try:
        yield place
    finally:
        try:
            place.clear()
        finally:
            if made:
                shutil.rmtree(made[0], ignore_errors=True)
            for folder in made[1:]:
                with suppress(OSError):  # somebody else uses it by now
                    folder.rmdir()


def check_output(place: Probes) -> Iterator[Finding]:
    """Findings on OUTPUT as a store.

    Raises:
        FFAAError: a verb fails that a run cannot do without.
    """
    yield from check_leftovers(place)
    raced = [check_race(place.store, place.object)]
    yield check_verbs(place)
    yield from check_room(place)
    deletion = check_deletion(place)
    yield deletion
    if place.deletable:
        raced += [check_race(place.store, f"{place.prefix}race-{number}") for number in range(1, RACES)]
    yield next((found for found in raced if found), None) or ok(
        RACE, f"of {CREATORS} racing creators of an object exactly one wins, {_times(len(raced))}"
    )


def check_leftovers(place: Probes) -> Iterator[Finding]:
    """Whether a doctor that was killed left its probes here."""
    names = [name for name in place.store.folders("") if name.startswith(layout.PROBES)]
    if names:
        yield warning(
            CHECK,
            f"another doctor is at work here, or was killed: {', '.join(map(place.store.uri_of, names[:3]))}",
            "if none is at work, delete what lies below; `ffaa score` does not mind it",
        )


def check_verbs(place: Probes) -> Finding:
    """Whether what is written is read and listed.

    Raises:
        FFAAError: it cannot be written, read or listed.
    """
    store, content = place.store, uuid.uuid4().bytes
    store.write(place.object, content)
    if store.read(place.object).data != content:
        return error(CHECK, f"{store.uri_of(place.object)} reads otherwise than it was written", USE_ANOTHER)
    if place.object not in [listed.key for listed in store.list(place.prefix)]:
        return error(CHECK, f"{store.uri_of(place.object)} was written and is not listed", USE_ANOTHER)
    return ok(CHECK, f"{store.uri} creates, writes, reads and lists")


def check_room(place: Probes) -> Iterator[Finding]:
    """Whether a local disk has little room left."""
    if "://" not in place.uri:
        free = shutil.disk_usage(place.uri).free
        if free < LEAST_FREE_BYTES:
            yield warning(
                "disk",
                f"{place.store.uri} has {free / 1e9:.1f} GB free; a million faces take some gigabytes",
                "free some space, or give an OUTPUT on a larger disk",
            )


def check_deletion(place: Probes) -> Finding:
    """Whether an object can be deleted, which only `ffaa table gc` and this doctor need."""
    store = place.store
    try:
        store.delete(place.object)
    except (ConfigurationError, StorageError) as failure:
        place.deletable = False
        return warning(
            CHECK,
            f"{failure}. So this one object stays, and no shard is tried",
            "`ffaa score` deletes nothing; allow s3:DeleteObject if `ffaa table gc` is to be used",
        )
    if store.exists(place.object):
        return warning(CHECK, f"{store.uri_of(place.object)} was deleted and is still there", USE_ANOTHER)
    return ok(CHECK, f"{store.uri} deletes, which only `ffaa table gc` needs")


def check_race(store: Store, key: str) -> Finding | None:
    """What is wrong if of eight creators of an object not exactly one wins; None if one does.

    Raises:
        FFAAError: an object cannot be created at all, such as where there are no hard links.
    """
    contents = [uuid.uuid4().bytes for _ in range(CREATORS)]
    winners = race(store, key, contents)
    stored = store.read(key).data
    answer_lost = not winners and stored in contents
    if winners == [stored] or answer_lost:
        return None
    return error(
        RACE,
        f"{len(winners)} of {CREATORS} racing creators of {store.uri_of(key)} were told that they won: two "
        "runs could both commit a shard",
        USE_ANOTHER,
    )


def race(store: Store, key: str, contents: list[bytes]) -> list[bytes]:
    """Create one object by as many threads at once as there are contents; returns those that won."""
    gate = threading.Barrier(len(contents))

    def create(content: bytes) -> bytes | None:
        gate.wait()
        try:
            store.create(key, content)
        except AlreadyExistsError:
            return None
        return content

    with ThreadPoolExecutor(len(contents)) as creators:
        return [content for content in creators.map(create, contents) if content]


def _missing_folders(place: Probes) -> list[Path]:
    """The folders that writing a probe makes on a local disk, innermost first; none on S3."""
    if "://" in place.uri:
        return []
    folder = Path(place.uri)
    return [folder, *(parent for parent in folder.parents if not parent.exists())]


def _times(n: int) -> str:
    return "in one race" if n == 1 else f"in each of {n} races"
