"""Whether the bundle is whole, its adapter fits, and OUTPUT takes what would be scored with it."""

import time
from collections.abc import Generator, Iterator

from ffaa_core.bundle import Bundle, resolve_bundle
from ffaa_core.errors import TableError
from ffaa_core.settings import fingerprint
from ffaa_core.storage import Store
from ffaa_core.table import VerdictTable, layout
from ray_jobs.doctor.finding import Finding, error, ok, warning
from ray_jobs.score.config import ScoreConfig
from ray_jobs.score.end_to_end import check_adapter
from ray_jobs.score.inputs import absolute

BUNDLE, ADAPTER, TABLE = "bundle", "adapter", "table"


def check_bundle(config: ScoreConfig) -> Generator[Finding, None, Bundle]:
    """Findings on the bundle, every file of which is read; returns it.

    Raises:
        BundleError: it is missing, incomplete, damaged, or its adapter does not fit.
        StorageError: it cannot be fetched.
    """
    bundle = resolve_bundle(config.bundle)
    started = time.monotonic()
    bundle.verify()
    seconds = time.monotonic() - started
    files = bundle.manifest.files().values()
    size = sum(entry.bytes for entry in files)
    yield ok(
        BUNDLE,
        f"all {len(files)} files of {bundle.location} have their digests, {size / 1e9:.2f} GB in "
        f"{seconds:.1f} s",
        bytes=size,
    )
    if bundle.warning:
        yield warning(BUNDLE, bundle.warning, "name your own bundle by --bundle or FFAA_BUNDLE")
    return bundle


def check_fit(bundle: Bundle) -> Iterator[Finding]:
    """Whether every tensor of the adapter belongs to a module of the model.

    Raises:
        AdapterError: one does not.
    """
    check_adapter(bundle)
    yield ok(ADAPTER, "every tensor of it fits the model" if bundle.adapter else "the bundle needs none")


def check_table(store: Store, config: ScoreConfig, input_uri: str, bundle: Bundle) -> Iterator[Finding]:
    """Whether a run over INPUT with this bundle could begin, or go on, in OUTPUT.

    Raises:
        TableError: OUTPUT holds a table that cannot be read.
    """
    if not store.exists(layout.MARKER):
        others = (info.key for info in store.list() if not info.key.startswith(layout.PROBES))
        other = next(others, None)
        if other:
            raise TableError(
                f"{store.uri} is no verdict table, but holds {other!r}: give an empty or new OUTPUT"
            )
        yield ok(TABLE, "OUTPUT is empty: the run makes a new table")
        return
    table = VerdictTable.on(store)
    open_run = table.open_run()
    if open_run is None:
        yield ok(TABLE, f"OUTPUT is a verdict table, and none of its {len(table.runs())} runs is open")
        return
    current = fingerprint(config.scoring, bundle.digests), absolute(input_uri)
    if (open_run.fingerprint, open_run.plan.settings.get("input")) == current:
        shards = f"{len(open_run.open_shards())} of {open_run.n_shards} shards"
        yield ok(TABLE, f"run {open_run.ordinal} is open, the same command goes on with {shards}")
        return
    yield error(
        TABLE,
        f"run {open_run.ordinal} over {open_run.plan.settings.get('input')} is open in OUTPUT under "
        f"fingerprint {open_run.fingerprint}; this one would be over {current[1]} under {current[0]}",
        f"finish it with the command that began it, close it by `ffaa table abandon {store.uri}`, or give "
        "another OUTPUT",
    )
