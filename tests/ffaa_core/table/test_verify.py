"""What `verify` finds, and what is no problem."""

import pytest

from ffaa_core.errors import CorruptTableError
from ffaa_core.storage.local import LocalStore
from ffaa_core.table import VerdictTable
from ffaa_core.table.verify import verify
from tests.ffaa_core.table.damage import damage, flip_last, problems_of, table_path
from tests.ffaa_core.table.shards import WAY, images, rows_of, score_all

DAMAGE = {
    "a data file is changed": ("runs/1/verdicts/*", flip_last, "not the file that was committed"),
    "a data file is cut": ("runs/1/verdicts/*", lambda data: data[:-1], "not the file that was committed"),
    "a plan part is changed": ("runs/1/plan/*/*", flip_last, "not the plan part that was sealed"),
    "a marker counts otherwise": (
        "runs/1/commits/000000.json",
        lambda data: data.replace(b'"images":2', b'"images":3'),
        "its marker says",
    ),
    "a marker is empty": (
        "runs/1/commits/000000.json",
        lambda data: b"",
        "000000.json is no commit: Invalid",
    ),
    "a marker is another shard's": (
        "runs/1/commits/000000.json",
        lambda data: data.replace(b'"shard":0', b'"shard":1'),
        "000000.json says that it is of shard 1 of run 1",
    ),
    "the manifest is changed": ("runs/1/manifest.parquet", flip_last, "not the manifest"),
    "the summary counts otherwise": (
        "runs/1/summary.json",
        lambda data: data.replace(b'"images":4', b'"images":5'),
        "summary counts otherwise",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_verify_finds_that(table, what):
    run = table.plan(images(4), shard_size=2, **WAY)
    score_all(run)
    run.close(0)
    glob, change, told = DAMAGE[what]
    damage(table, glob, change)
    problems = [finding.text for finding in verify(table) if finding.problem]
    assert problems
    assert told in "\n".join(problems)


def test_one_problem_hides_no_other(table):
    run = table.plan(images(6), shard_size=2, **WAY)
    score_all(run)
    run.close(0)
    damage(table, "runs/1/commits/000000.json", lambda data: b"{")
    damage(table, "runs/1/verdicts/000001-*", flip_last)
    damage(table, "runs/1/plan/*/*", flip_last)
    table.store.write("runs/1/commits/notes.txt", b"")
    told = ["plan part", "000000.json is no commit", "shard 1", "notes.txt is no commit marker"]
    problems = problems_of(table)
    assert len(problems) == len(told)
    assert all(part in problem for part, problem in zip(told, problems, strict=True))


@pytest.mark.parametrize("lost", [1, 2])
def test_a_run_that_lost_its_seal_is_told_and_never_planned_over(table, lost):
    for version in ("v1", "v2"):
        run = table.plan(images(4, version), shard_size=2, **WAY)
        score_all(run)
        run.close(0)
    (table_path(table) / f"runs/{lost}/plan.json").unlink()
    told = f"its seal runs/{lost}/plan.json is missing, but 2 shards are committed and "
    (problem,) = problems_of(table)
    assert problem.startswith(f"run {lost}: {told}")
    for verb in (table.runs, table.rows, lambda: table.plan(images(4, "v3"), **WAY)):
        with pytest.raises(CorruptTableError, match=told):
            verb()


def test_a_run_that_is_finished_meanwhile_is_no_problem(table):
    run = table.plan(images(4), shard_size=2, **WAY)
    run.commit(0, rows_of(run, 0), writer="w", engine={})

    class FinishedOnceListed(LocalStore):
        """Somebody commits the rest of the run and closes it right after its markers were listed."""

        def list(self, prefix=""):
            yield from super().list(prefix)
            if prefix == "runs/1/commits/" and run.summary() is None:
                score_all(run)
                run.close(0)

    assert problems_of(VerdictTable.on(FinishedOnceListed(table.uri))) == []
    assert run.summary()


def test_verify_tells_a_run_that_nobody_closed_from_one_that_lost_its_summary(table):
    for version in ("v1", "v2"):
        run = table.plan(images(4, version), shard_size=2, **WAY)
        score_all(run)
        run.close(0)
    for ordinal in (1, 2):
        table.store.delete(f"runs/{ordinal}/summary.json")
    first, second = verify(table)
    told = "run 1: runs/1/summary.json is missing, but another run followed"
    assert (first.text, first.problem) == (told, True)
    told = "run 2: 4 images in 2 shards, open, no shard is left to do but nobody has closed it yet"
    assert (second.text, second.problem) == (told, False)


def test_verify_finds_a_missing_data_file(table):
    run = table.plan(images(4), shard_size=2, **WAY)
    score_all(run)
    next(table_path(table).glob("runs/1/verdicts/000001-*")).unlink()
    (problem,) = [finding.text for finding in verify(table) if finding.problem]
    assert "shard 1" in problem
    assert "missing" in problem


def test_verify_finds_a_marker_that_names_the_file_of_another_shard(table):
    run = table.plan(images(4), shard_size=2, **WAY)
    score_all(run)
    other = table.store.read("runs/1/commits/000001.json").data
    table.store.write("runs/1/commits/000000.json", other.replace(b'"shard":1', b'"shard":0'))
    (problem,) = problems_of(table)
    assert "row 0 of shard 0 of run 1 has image_uri 's3://in/0002.jpg', planned is" in problem


def test_an_abandoned_run_is_told_and_no_problem(table):
    run = table.plan(images(6), shard_size=2, **WAY)
    run.commit(1, rows_of(run, 1), writer="w", engine={})
    run.abandon()
    (finding,) = verify(table)
    told = "run 1: 6 images in 3 shards, 2 of its shards were abandoned and have no rows"
    assert (finding.text, finding.problem) == (told, False)


ABANDONED_DAMAGE = {
    "a tombstone counts rows": ("commits/000000.json", (b'"images":0', b'"images":2'), "its marker counts"),
    "a tombstone is gone": ("commits/000000.json", None, "shards [0] are not committed"),
    "the run passes for finished": ("summary.json", (b'"exit_code":75', b'"exit_code":0'), "ended with 0"),
}


@pytest.mark.parametrize("what", ABANDONED_DAMAGE)
def test_verify_finds_of_an_abandoned_run_that(table, what):
    table.plan(images(4), shard_size=2, **WAY).abandon()
    file, change, told = ABANDONED_DAMAGE[what]
    if change:
        damage(table, f"runs/1/{file}", lambda data: data.replace(*change))
    else:
        table.store.delete(f"runs/1/{file}")
    assert told in "\n".join(problems_of(table))
