"""Known rows: a run's, written on close, make planning read one object of it, and make no other plan."""

import random
import shutil
import tracemalloc
from dataclasses import replace

import pyarrow as pa
import pytest

from ffaa_core.errors import StorageError
from ffaa_core.parquet import read_batches
from ffaa_core.storage.local import LocalStore
from ffaa_core.table import PlannedImage, VerdictTable, known, scratch
from ffaa_core.table.records import Summary, decode, encode
from ffaa_core.verdict import Status
from tests.ffaa_core.table.damage import damage, flip_last, problems_of, table_path
from tests.ffaa_core.table.shards import WAY, fails, images, rows_of, score_all

FINGERPRINTS = ("f1", "f2")
OUTCOMES = ("scored", "scored", "no_face", "gone", "fetch_failed", "crashed", "answer_failed")


class Reads(LocalStore):
    """Remembers which objects were read or opened."""

    def __init__(self, root):
        super().__init__(root)
        self.keys = []

    def read(self, key, *, limit=None):
        self.keys.append(key)
        return super().read(key, limit=limit)

    def open(self, key):
        self.keys.append(key)
        return super().open(key)


def some_nights(table, seed):
    """Images come and change, runs fail them and give up shards. Returns the last listing."""
    chance = random.Random(seed)
    versions: dict[str, int | None] = {}
    for _ in range(8):
        for number in chance.sample(range(30), 12):
            versions[f"s3://in/{number:04d}.jpg"] = chance.choice([None, 1, 2, 3])
        listing = [
            PlannedImage(image_uri=uri, planned_version=str(version) if version else None)
            for uri, version in versions.items()
        ]
        fingerprint = chance.choice(FINGERPRINTS)
        run = table.plan(listing, **WAY | {"fingerprint": fingerprint}, shard_size=3)
        if run is None:
            continue

        def outcome(row):
            status = chance.choice(OUTCOMES)
            seen = chance.choice([row["image_version"], "3", None])
            return {"status": status, "image_version": seen}

        for shard in run.open_shards():
            if chance.random() < 0.8:
                run.commit(shard, rows_of(run, shard, outcome), writer="w", engine={})
        run.abandon()
    return listing


def plans(table, listing):
    """What would be planned next under each fingerprint, plainly and with everything tried again."""
    found = {}
    for fingerprint in FINGERPRINTS:
        for retry in ((), tuple(Status)):
            copy = table_path(table).with_name("copy")
            shutil.copytree(table_path(table), copy)
            run = VerdictTable.open(str(copy)).plan(
                listing, **WAY | {"fingerprint": fingerprint}, shard_size=4, retry=retry
            )
            shards = range(run.n_shards) if run else ()
            found[fingerprint, retry] = [run.plan_rows(shard).to_pylist() for shard in shards]
            shutil.rmtree(copy)
    return found


def forget(table):
    """Make the table one whose runs a version without known rows closed."""
    for path in table_path(table).glob("runs/*/summary.json"):
        summary = decode(Summary, path.read_bytes(), str(path))
        older = encode(replace(summary, known_sha256=None))
        path.write_bytes(older.replace(b',"known_sha256":null', b""))
    for folder in table_path(table).glob("runs/*/known"):
        shutil.rmtree(folder)


@pytest.mark.parametrize("seed", range(4))
def test_known_rows_lead_to_the_same_plan_as_the_data_files(table, seed):
    listing = some_nights(table, seed)
    with_known = plans(table, listing)
    assert any(with_known.values())
    assert any(run.summary().known_sha256 for run in table.runs())
    forget(table)
    assert not any(run.summary().known_sha256 for run in table.runs())
    assert plans(table, listing) == with_known
    assert problems_of(table) == []


def test_planning_opens_no_data_file_of_closed_runs(table):
    for night in range(1, 4):
        run = table.plan(images(20 * night), shard_size=2, **WAY)
        score_all(run, fails("0001"))
        run.close(0)
    store = Reads(table.uri)
    planned = VerdictTable.on(store).plan(images(70), **WAY)
    assert planned.n_images == 10
    assert not [key for key in store.keys if "/verdicts/" in key or "/commits/" in key]
    assert len([key for key in store.keys if key.startswith("runs/")]) == 3 * 3 + 2


DAMAGED = {
    "missing": lambda path: path.unlink(),
    "changed": lambda path: path.write_bytes(flip_last(path.read_bytes())),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "another run's": lambda path: shutil.copy(next(path.parents[2].glob("2/known/*")), path),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_where_known_rows_are_damaged_the_data_files_are_read_and_verify_tells_it(table, how):
    for listed in (images(4), images(6)):
        run = table.plan(listed, shard_size=2, **WAY)
        score_all(run, fails("0001"))
        run.close(0)
    expected = plans(table, images(8))
    (path,) = table_path(table).glob("runs/1/known/*")
    DAMAGED[how](path)
    assert plans(table, images(8)) == expected
    (problem,) = problems_of(table)
    assert problem.startswith(f"run 1: runs/1/known/{path.name} is missing or damaged")


def test_verify_finds_known_rows_that_are_too_few(table):
    for listed in (images(4), images(6)):
        run = table.plan(listed, shard_size=2, **WAY)
        score_all(run)
        run.close(0)
    (mine,), (other,) = (table_path(table).glob(f"runs/{run}/known/*") for run in (1, 2))
    shutil.copy(other, mine.with_name(other.name))
    damage(table, "runs/1/summary.json", lambda data: data.replace(mine.stem.encode(), other.stem.encode()))
    (problem,) = problems_of(table)
    assert problem == f"run 1: runs/1/known/{other.name} holds 2 images, the summary counts 4"


def test_a_run_with_a_lost_data_file_can_be_closed_and_knows_no_rows(table):
    run = table.plan(images(4), shard_size=2, **WAY)
    score_all(run)
    next(table_path(table).glob("runs/1/verdicts/000001-*")).unlink()
    assert run.close(0).known_sha256 is None
    assert not (table_path(table) / "runs/1/known").exists()


def test_several_closers_write_the_same_known_rows(table):
    run = table.plan(images(6), shard_size=2, **WAY)
    score_all(run)
    written = {known.write_known(table.store, 1, run.markers()) for _ in range(2)}
    assert written == {run.close(0).known_sha256}
    assert len(list(table_path(table).glob("runs/1/known/*"))) == 1


def test_a_full_temporary_folder_is_told(table, monkeypatch):
    run = table.plan(images(2), **WAY)
    score_all(run)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(known, "gathered", full)
    with pytest.raises(StorageError, match=r"known rows in the temporary folder .* set TMPDIR"):
        run.close(0)
    monkeypatch.undo()
    assert run.close(0).known_sha256
    monkeypatch.setattr(known.shutil, "copyfileobj", full)
    with pytest.raises(StorageError, match="set TMPDIR"):
        table.plan(images(3), **WAY)


def test_the_memory_known_rows_are_written_and_read_in_does_not_grow_with_the_images(
    table, monkeypatch, tmp_path
):
    """Of Arrow, which holds rows, and of Python."""
    monkeypatch.setattr(scratch, "BATCH", 1 << 12)
    batch = pa.RecordBatch.from_pylist(
        [
            {
                "image_uri": f"s3://in/{random.Random(i).getrandbits(800):x}",
                "status": "scored",
                "attempts": 1,
                "run": 1,
            }
            for i in range(512)
        ],
        schema=known.KNOWN_SCHEMA,
    )

    def copied():
        return None, [batch.take(pa.array(range(len(batch))))]

    def peak(n_batches):
        pool = pa.proxy_memory_pool(pa.default_memory_pool())
        monkeypatch.setattr(known, "read_commits", lambda *_: (copied() for _ in range(n_batches)))
        before = pa.default_memory_pool()
        pa.set_memory_pool(pool)
        tracemalloc.start()
        try:
            sha256 = known.write_known(table.store, 1, [])
            with known.fetched_known(table.store, 1, sha256) as file:
                n_rows = sum(len(rows) for rows in read_batches(file))
            assert n_rows == 512 * n_batches
            return pool.max_memory(), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(before)

    few, many = peak(16), peak(256)
    assert many[0] < 2 * few[0]
    assert many[1] < 2 * few[1]
