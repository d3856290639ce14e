"""A run: its shards are committed, each by the first and whole, and then it is closed."""

import pickle

import pyarrow as pa
import pytest

from ffaa_core.errors import TableError, TornShardError
from ffaa_core.table import VerdictTable
from ffaa_core.table.schema import ROW_SCHEMA
from ffaa_core.table.verify import verify
from tests.ffaa_core.table.shards import WAY, fails, images, rows, rows_of, score_all


def test_a_run_from_plan_to_rows(any_table):
    run = any_table.plan(images(10), shard_size=4, **WAY)
    assert (run.ordinal, run.n_images, run.n_shards, run.open_shards()) == (1, 10, 3, [0, 1, 2])
    score_all(run)
    summary = run.close(3)
    assert (summary.counts.images, summary.counts.statuses, summary.engine) == (
        10,
        {"scored": 10},
        {"tokens": 30},
    )
    assert [row["image_uri"] for row in rows(any_table)] == [image.image_uri for image in images(10)]
    assert any_table.plan(images(10), **WAY) is None
    assert any_table.runs()[0].summary().exit_code == 3
    assert [finding.problem for finding in verify(VerdictTable.open(any_table.uri))] == [False]


def test_the_second_writer_of_a_shard_learns_who_won(any_table):
    run = any_table.plan(images(1), **WAY)
    first = run.commit(0, rows_of(run, 0), writer="one", engine={})
    second = run.commit(0, rows_of(run, 0, fails("0000")), writer="two", engine={})
    assert (first.won, second.won) == (True, False)
    assert second.commit == first.commit
    assert second.commit.writer == "one"


TORN = {
    "a row is missing": lambda rows: rows.slice(1),
    "a row is doubled": lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]),
    "rows changed places": lambda rows: pa.concat_tables([rows.slice(1), rows.slice(0, 1)]),
    "a row replaces another": lambda rows: pa.concat_tables([rows.slice(1), rows.slice(1, 1)]),
    "nothing is left": lambda rows: rows.slice(0, 0),
}


@pytest.mark.parametrize("how", TORN)
def test_a_torn_shard_is_refused(table, how):
    run = table.plan(images(4), shard_size=2, **WAY)
    with pytest.raises(TornShardError, match="shard 1 of run 1"):
        run.commit(1, TORN[how](rows_of(run, 1)), writer="w", engine={})
    with pytest.raises(TornShardError):
        run.commit(1, rows_of(run, 0), writer="w", engine={})
    assert run.open_shards() == [0, 1]


@pytest.mark.parametrize("wrong", [{"fingerprint": "f2"}, {"run": 2}, {"shard": 1}, {"status": "fine"}])
def test_rows_of_another_run_or_status_are_refused(table, wrong):
    run = table.plan(images(2), **WAY)
    with pytest.raises(TableError, match=next(iter(wrong))):
        run.commit(0, rows_of(run, 0, lambda row: wrong), writer="w", engine={})


def test_rows_without_the_schema_are_refused(table):
    run = table.plan(images(2), **WAY)
    with pytest.raises(TableError, match="image_sha256"):
        run.commit(0, rows_of(run, 0).drop_columns(["image_sha256"]), writer="w", engine={})


def test_rows_whose_schema_was_loosened_on_the_way_are_taken(table):
    run = table.plan(images(2), **WAY)
    loose = pa.schema([pa.field(field.name, field.type) for field in ROW_SCHEMA])
    run.commit(0, rows_of(run, 0).cast(loose), writer="w", engine={})
    assert next(table.rows()).schema.equals(ROW_SCHEMA)


def test_closing_waits_for_every_shard_and_happens_once(table):
    run = table.plan(images(4), shard_size=2, **WAY)
    run.commit(0, rows_of(run, 0), writer="w", engine={})
    with pytest.raises(TableError, match="1 of its 2 shards"):
        run.close(0)
    score_all(run)
    assert run.close(3) == run.close(0) == run.summary()
    assert run.summary().exit_code == 3
    assert list(run.commits()) == list(run.markers())


def test_a_run_can_be_sent_to_workers(table):
    run = pickle.loads(pickle.dumps(table.plan(images(2), **WAY)))
    score_all(run)
    assert len(rows(table)) == 2
