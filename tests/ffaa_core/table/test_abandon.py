"""Abandoning a run: what is committed stays, late writers lose, and the next run plans the rest."""

import threading

import pytest

from ffaa_core.errors import RunAbandonedError, StorageError
from ffaa_core.storage.local import LocalStore
from ffaa_core.table import VerdictTable
from ffaa_core.table.garbage import collect_garbage
from tests.ffaa_core.table.damage import problems_of
from tests.ffaa_core.table.shards import WAY, images, rows, rows_of, score_all


def test_an_abandoned_run_keeps_its_rows_and_the_next_one_plans_the_others(any_table):
    run = any_table.plan(images(10), shard_size=4, **WAY)
    run.commit(1, rows_of(run, 1), writer="w", engine={"tokens": 7})
    summary = any_table.open_run().abandon()
    assert (summary.abandoned, summary.exit_code) == (True, 75)
    assert (summary.counts.images, summary.engine) == (4, {"tokens": 7})
    assert any_table.open_run() is None
    assert [row["image_uri"][8:12] for row in rows(any_table)] == ["0004", "0005", "0006", "0007"]
    after = any_table.plan(images(10), **WAY)
    assert (after.ordinal, after.n_images) == (2, 6)
    assert set(after.plan_rows(0)["attempts"].to_pylist()) == {1}
    score_all(after)
    after.close(0)
    runs = {row["image_uri"][8:12]: row["run"] for row in rows(any_table)}
    assert runs == {f"{i:04d}": 1 if 4 <= i < 8 else 2 for i in range(10)}
    assert problems_of(any_table) == []


def test_a_run_abandoned_under_one_fingerprint_makes_room_for_another(table):
    table.plan(images(4), **WAY).abandon()
    assert table.plan(images(4), **{**WAY, "fingerprint": "f2"}).ordinal == 2


def test_a_writer_that_comes_late_loses_and_is_told_so(any_table):
    zombie = any_table.plan(images(4), shard_size=2, **WAY)
    any_table.open_run().abandon()
    with pytest.raises(
        RunAbandonedError, match=r"run 1 of .* was abandoned; start the same command"
    ) as error:
        zombie.commit(0, rows_of(zombie, 0), writer="zombie", engine={})
    assert error.value.exit_code == 75
    assert rows(any_table) == []
    assert problems_of(any_table) == []
    (left,) = collect_garbage(any_table)
    assert left.key.startswith("runs/1/verdicts/000000-")


def abandon_and_die(table):
    """Abandon the open run, but die after the first tombstone."""

    class DyingStore(LocalStore):
        def create(self, key, data):
            if key.endswith("000001.json"):
                raise StorageError("no route")
            super().create(key, data)

    with pytest.raises(StorageError):
        VerdictTable.on(DyingStore(table.uri)).open_run().abandon()


def test_abandoning_again_goes_on_where_it_stopped(table):
    run = table.plan(images(6), shard_size=2, **WAY)
    abandon_and_die(table)
    (first,) = run.markers()
    assert run.abandon() == run.abandon()
    markers = list(run.markers())
    assert [marker.file for marker in markers] == [None] * 3
    assert first == markers[0]


def test_a_driver_goes_on_with_what_was_not_abandoned_but_cannot_finish_the_run(table):
    run = table.plan(images(6), shard_size=2, **WAY)
    run.commit(2, rows_of(run, 2), writer="w", engine={})
    abandon_and_die(table)
    continued = table.plan(images(6), **WAY)
    assert (continued.ordinal, continued.open_shards()) == (1, [1])
    score_all(continued)
    assert continued.close(0).exit_code == 75
    assert table.plan(images(6), **WAY).n_images == 2


def test_a_finished_run_that_nobody_closed_is_closed_and_loses_nothing(table):
    run = table.plan(images(4), shard_size=2, **WAY)
    score_all(run)
    assert run.abandon().counts.images == 4
    assert table.plan(images(4), **WAY) is None


def test_a_run_that_was_closed_first_is_not_abandoned(table):
    run = table.plan(images(4), shard_size=2, **WAY)
    score_all(run)
    run.close(3)
    assert run.abandon().exit_code == 3
    assert table.open_run() is None


def test_the_name_of_an_abandoned_run_can_be_used_again(table):
    table.plan(images(2), name="monday", **WAY).abandon()
    again = table.plan(images(2), name="monday", **WAY)
    assert (again.ordinal, again.n_images) == (2, 2)


def test_of_two_that_abandon_beside_a_working_driver_every_shard_has_one_winner(any_table):
    n_shards = 12
    run = any_table.plan(images(n_shards), shard_size=1, **WAY)
    gate = threading.Barrier(4)
    won, summaries, failures = set(), [], []

    def write(shards):
        gate.wait()
        try:
            for shard in shards:
                if run.commit(shard, rows_of(run, shard), writer="w", engine={}).won:
                    won.add(shard)
        except RunAbandonedError:
            pass
        except BaseException as error:
            failures.append(error)

    def abandon():
        gate.wait()
        try:
            summaries.append(any_table.runs()[0].abandon())
        except BaseException as error:
            failures.append(error)

    doers = [threading.Thread(target=write, args=(range(i, n_shards, 2),)) for i in range(2)]
    doers += [threading.Thread(target=abandon) for _ in range(2)]
    for doer in doers:
        doer.start()
    for doer in doers:
        doer.join()
    assert failures == []
    assert summaries[0] == summaries[1]
    assert {row["shard"] for row in rows(any_table)} == won
    left = any_table.plan(images(n_shards), **WAY)  # None where the writers were quicker everywhere
    assert (left.n_images if left else 0) == n_shards - len(won)
    assert problems_of(any_table) == []
