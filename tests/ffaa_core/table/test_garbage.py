"""Collecting garbage: the files of losers go, and nothing that anybody reads or may still name."""

import pytest

from ffaa_core.errors import AlreadyExistsError, CorruptTableError, RunAbandonedError
from ffaa_core.storage.local import TEMPORARY, LocalStore
from ffaa_core.table import Run, VerdictTable
from ffaa_core.table.garbage import collect_garbage
from tests.ffaa_core.table.damage import problems_of, table_path
from tests.ffaa_core.table.shards import WAY, images, rows, rows_of, score_all


def files(table):
    return {info.key: info.size for info in table.store.list() if "/verdicts/" in info.key}


def lose(run, shard):
    """Commit a shard that has a commit already."""
    assert not run.commit(shard, rows_of(run, shard), writer="loser", engine={}).won


def test_the_files_of_losers_are_deleted_and_those_of_winners_stay(any_table):
    run = any_table.plan(images(6), shard_size=2, **WAY)
    score_all(run)
    winners = files(any_table)
    lose(run, 0)
    lose(run, 0)
    run.close(0)
    lose(run, 2)
    before, expected = files(any_table), rows(any_table)
    found = {info.key: info.size for info in collect_garbage(any_table)}
    assert found == {key: size for key, size in before.items() if key not in winners}
    assert len(found) == 3
    assert files(any_table) == winners
    assert rows(any_table) == expected
    assert problems_of(any_table) == []
    assert list(collect_garbage(any_table)) == []


def test_a_dry_run_deletes_nothing(table):
    run = table.plan(images(2), **WAY)
    score_all(run)
    lose(run, 0)
    before = files(table)
    (lost,) = collect_garbage(table, dry_run=True)
    assert lost.size == before[lost.key] > 0
    assert files(table) == before


def test_every_file_of_an_abandoned_shard_is_garbage(table):
    run = table.plan(images(2), **WAY)
    run.abandon()
    with pytest.raises(RunAbandonedError):
        run.commit(0, rows_of(run, 0), writer="zombie", engine={})
    assert len(list(collect_garbage(table))) == 1
    assert files(table) == {}


def test_known_rows_that_the_summary_does_not_name_are_deleted_once_there_is_one(any_table):
    run = any_table.plan(images(2), **WAY)
    score_all(run)
    lost = f"runs/1/known/{'0' * 64}.parquet"
    any_table.store.write(lost, b"by a closer of another version, which was late")
    assert list(collect_garbage(any_table)) == []
    named = run.close(0).known_sha256
    assert [info.key for info in collect_garbage(any_table)] == [lost]
    assert [info.key for info in any_table.store.list("runs/1/known/")] == [f"runs/1/known/{named}.parquet"]
    assert problems_of(any_table) == []


class NoMarkers(LocalStore):
    """Whoever commits dies before the marker."""

    def create(self, key, data):
        raise AlreadyExistsError("dead")


def test_a_shard_without_a_commit_keeps_its_files(table):
    run = table.plan(images(4), shard_size=2, **WAY)
    run.commit(1, rows_of(run, 1), writer="w", engine={})
    with pytest.raises(Exception, match="does not exist"):
        Run(NoMarkers(table.uri), run.plan).commit(0, rows_of(run, 0), writer="w", engine={})
    before = files(table)
    assert len(before) == 2
    assert list(collect_garbage(table)) == []
    assert files(table) == before


STRANGERS = [
    "runs/1/verdicts/000000-note.parquet",
    "runs/1/verdicts/notes.txt",
    f"runs/1/verdicts/000000-{'0' * 32}.parquet.bak",
    f"runs/1/verdicts/old/000000-{'0' * 32}.parquet",
    f"runs/1/verdicts/{TEMPORARY}{'0' * 32}",
    f"runs/1/plan/{'0' * 32}/000000.parquet",
    "runs/1/known/notes.txt",
    f"runs/1/known/{'0' * 64}.parquet.bak",
    f"runs/1/known/{'0' * 32}.parquet",
]


def test_files_that_no_writer_leaves_as_a_loser_are_left_alone(table):
    run = table.plan(images(2), **WAY)
    score_all(run)
    run.close(0)
    for key in STRANGERS:
        table.store.write(key, b"?")
    assert list(collect_garbage(table)) == []
    assert all((table_path(table) / key).exists() for key in STRANGERS)


def test_the_last_copy_of_a_shards_rows_is_never_deleted(table):
    run = table.plan(images(4), shard_size=2, **WAY)
    score_all(run)
    lose(run, 0)
    table.store.delete(next(run.markers()).file)
    before = files(table)
    with pytest.raises(CorruptTableError, match=r"shard 0 of run 1 is committed as .* nothing of this run"):
        list(collect_garbage(table))
    assert files(table) == before


def test_nothing_is_deleted_after_a_marker_that_names_the_file_of_another_shard(table):
    run = table.plan(images(4), shard_size=2, **WAY)
    score_all(run)
    other = table.store.read("runs/1/commits/000001.json").data
    table.store.write("runs/1/commits/000000.json", other.replace(b'"shard":1', b'"shard":0'))
    before = files(table)
    with pytest.raises(CorruptTableError, match="missing or another shard's"):
        list(collect_garbage(table))
    assert files(table) == before


def test_a_table_without_runs_has_no_garbage(tmp_path):
    assert list(collect_garbage(VerdictTable.open(str(tmp_path / "out"), create=True))) == []
