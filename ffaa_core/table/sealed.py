"""Finding the runs of a table by their seals, and telling a lost seal from a plan still being written."""

from collections import Counter

from ffaa_core.errors import CorruptTableError, NotFoundError
from ffaa_core.storage import Store
from ffaa_core.table import layout
from ffaa_core.table.run import Run


def begun_ordinals(store: Store) -> list[int]:
    """The ordinals of all runs, also of one whose plan is still being written."""
    return sorted(int(name) for name in store.folders(layout.RUNS) if name.isdecimal())


def sealed_ordinals(store: Store) -> list[int]:
    """The ordinals of the sealed runs. Only the highest folders may be of a plan still being written.

    Raises:
        CorruptTableError: the highest run has lost its seal.
    """
    ordinals = begun_ordinals(store)
    while ordinals and not store.exists(layout.plan(ordinals[-1])):
        if problem := lost_seal(store, ordinals[-1]):
            raise CorruptTableError(f"run {ordinals[-1]} of {store.uri}: {problem}")
        ordinals.pop()
    return ordinals


def load_run(store: Store, ordinal: int) -> Run:
    """A run that must be sealed.

    Raises:
        CorruptTableError: it has lost its seal.
    """
    try:
        return Run.load(store, ordinal)
    except NotFoundError as error:
        problem = lost_seal(store, ordinal) or str(error)
        raise CorruptTableError(f"run {ordinal} of {store.uri}: {problem}") from error


def lost_seal(store: Store, ordinal: int) -> str | None:
    """What shows that a run without a seal had one; None if nothing does, or it is sealed after all."""
    folder = layout.run(ordinal)
    held = Counter(info.key.removeprefix(folder).partition("/")[0] for info in store.list(folder))
    traces = []
    if n := held["commits"]:
        traces.append(f"{n} {'shard is' if n == 1 else 'shards are'} committed")
    for key in (layout.manifest(ordinal), layout.summary(ordinal)):
        if held[key.removeprefix(folder)]:
            traces.append(f"{key} exists")
    if not traces or store.exists(layout.plan(ordinal)):  # it may have been sealed since
        return None
    return f"its seal {layout.plan(ordinal)} is missing, but {' and '.join(traces)}"
