"""The verdict table on every store: plan, commit, close, read, and what verify finds."""

import json
import pickle

import pyarrow as pa
import pytest

from ffaa_core.errors import (
    ConfigurationError,
    CorruptTableError,
    RunConflictError,
    TableError,
    TornShardError,
)
from ffaa_core.storage.local import LocalStore
from ffaa_core.table import PlannedImage, VerdictTable, plan, reader
from ffaa_core.table.schema import FACE, ROW_SCHEMA
from ffaa_core.table.verify import verify
from ffaa_core.verdict import Status
from tests.ffaa_core.table.shards import images, rows_of, score_all
from tests.fixtures.s3 import use

WAY = {"fingerprint": "f1", "settings": {"faces": {"mode": "detect"}, "formats": ("JPEG",)}}


@pytest.fixture
def table(tmp_path):
    return VerdictTable.open(str(tmp_path / "out"), create=True)


@pytest.fixture(params=["local", "moto", "ceph"])
def any_table(request, tmp_path, monkeypatch):
    if request.param == "local":
        return VerdictTable.open(str(tmp_path / "out"), create=True)
    server = request.getfixturevalue(f"{request.param}_server")
    use(server, monkeypatch)
    return VerdictTable.open(f"s3://{server.fresh_bucket()}/out", create=True)


def rows(table, **options):
    return [row for batch in table.rows(**options) for row in batch.to_pylist()]


def fails(*names, status="fetch_failed"):
    """Rows whose image has one of these numbers fail."""
    return lambda row: {"status": status, "verdict": None} if row["image_uri"][8:12] in names else {}


def unlisted():
    """A listing that nobody may read."""
    raise AssertionError("listed again")
    yield


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
    assert any_table.latest_summary("f1").exit_code == 3
    assert [finding.problem for finding in verify(VerdictTable.open(any_table.uri))] == [False]


def test_rows_come_back_with_the_schema_they_were_given(table):
    run = table.plan(images(1), **WAY)
    answer = {
        "question": "open",
        "text": "t",
        "finish_reason": "stop",
        "attempts": 1,
        "constrained": False,
        "truncated": False,
        "class_probabilities": [0.1, 0.2, 0.3, 0.4],
    }
    box = {"left": -1, "top": 0, "right": 5, "bottom": 5}
    face = {"box": box, "status": "scored", "crop_sha256": "c", "answers": [answer], "crop": b"png"}
    offered = rows_of(run, 0, lambda row: {"faces": [face]})
    run.commit(0, offered, writer="w", engine={})
    (batch,) = table.rows()
    assert batch.schema.equals(ROW_SCHEMA)
    assert batch.to_pylist() == offered.to_pylist()


def test_nested_columns_are_read_alone(table):
    score_all(table.plan(images(1), **WAY))
    (batch,) = table.rows(columns=["image_uri", "faces.list.element.box"])
    assert batch.schema.names == ["image_uri", "faces"]
    assert [field.name for field in batch.schema.field("faces").type.value_type] == ["box"]


def test_duplicates_of_a_listing_are_planned_once(table):
    assert table.plan([*images(3), *images(3)], **WAY).n_images == 3


def test_shards_are_cut_by_number_and_by_bytes(table):
    sizes = [10, 90, 20, 500, None, 5, 5]
    listing = [PlannedImage(image_uri=f"/{i}", size_bytes=size) for i, size in enumerate(sizes)]
    run = table.plan(listing, shard_size=3, shard_bytes=100, **WAY)
    cut = [run.plan_rows(shard)["size_bytes"].to_pylist() for shard in range(run.n_shards)]
    assert cut == [[10, 90], [20], [500], [None, 5, 5]]


def test_plans_of_several_parts_hold_every_shard_once(table, monkeypatch):
    monkeypatch.setattr(plan, "SHARDS_PER_PART", 3)
    monkeypatch.setattr(plan, "BATCH", 5)
    run = table.plan(images(50), shard_size=2, **WAY)
    assert len(run.plan.parts) == 9
    planned = [uri for shard in range(25) for uri in run.plan_rows(shard)["image_uri"].to_pylist()]
    assert planned == [image.image_uri for image in images(50)]


def test_an_open_run_is_continued_without_listing_again(table):
    run = table.plan(images(10), shard_size=4, **WAY)
    run.commit(1, rows_of(run, 1), writer="w", engine={})
    again = table.plan(unlisted(), **WAY)
    assert (again.ordinal, again.open_shards()) == (1, [0, 2])


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"fingerprint": "f2"}, "fingerprint: was f1, is f2"),
        (
            {"settings": {"faces": {"mode": "published"}, "formats": ["JPEG"]}},
            "faces.mode: was detect, is published",
        ),
        ({"kind": "mine"}, "kind: was score, is mine"),
    ],
)
def test_an_open_run_with_other_settings_is_a_conflict(table, other, told):
    table.plan(images(2), name="monday", **WAY)
    with pytest.raises(RunConflictError, match=r"run 1 \(monday\) is open .* other settings") as error:
        table.plan(images(2), **{**WAY, **other})
    assert f"({told})" in str(error.value)
    assert error.value.exit_code == 75


def test_a_setting_that_is_nothing_is_one_that_older_plans_lack(table):
    table.plan(images(2), **WAY)
    assert table.plan(unlisted(), **{**WAY, "settings": {**WAY["settings"], "warning": None}}).ordinal == 1


def test_transient_images_are_planned_three_times_in_all(table):
    for attempt in (1, 2, 3):
        run = table.plan(images(4), **WAY)
        assert run.n_images == (4 if attempt == 1 else 1)
        assert set(run.plan_rows(0)["attempts"].to_pylist()) == {attempt}
        score_all(run, fails("0002"))
        run.close(0)
    assert table.plan(images(4), **WAY) is None
    retried = table.plan(images(4), retry=[Status.FETCH_FAILED], **WAY)
    assert retried.plan_rows(0).to_pylist()[0]["attempts"] == 4


def test_settled_failures_are_planned_again_only_on_request(table):
    run = table.plan(images(4), **WAY)
    score_all(run, fails("0002", status="decode_failed"))
    run.close(0)
    assert table.plan(images(4), **WAY) is None
    assert table.plan(images(4), retry=[Status.DECODE_FAILED], **WAY).n_images == 1


@pytest.mark.parametrize("version", ["v1", None])
def test_an_image_that_was_gone_and_is_listed_again_is_planned_three_times_in_all(table, version):
    listing = images(2, version)
    for attempt in (1, 2, 3):
        run = table.plan(listing, **WAY)
        assert set(run.plan_rows(0)["attempts"].to_pylist()) == {attempt}
        score_all(run, fails("0001", status="gone"))
        run.close(0)
    assert run.plan_rows(0)["image_uri"].to_pylist() == ["s3://in/0001.jpg"]
    assert table.plan(listing, **WAY) is None


def test_changed_images_and_new_ones_are_planned(table):
    run = table.plan(images(3), **WAY)
    score_all(run)
    run.close(0)
    listing = [*images(1), *images(2, "v2")[1:], *images(4)[2:]]
    uris = table.plan(listing, **WAY).plan_rows(0)["image_uri"].to_pylist()
    assert uris == ["s3://in/0001.jpg", "s3://in/0003.jpg"]


def test_the_version_that_was_scored_counts_not_the_one_planned(table):
    run = table.plan(images(1, "v1"), **WAY)
    score_all(run, lambda row: {"image_version": "v2"})
    run.close(0)
    assert table.plan(images(1, "v2"), **WAY) is None


def test_an_image_without_a_listed_version_is_settled_by_any(table):
    run = table.plan([PlannedImage(image_uri="/a")], **WAY)
    score_all(run, lambda row: {"image_version": "v2"})
    run.close(0)
    assert table.plan([PlannedImage(image_uri="/a")], **WAY) is None


def test_another_fingerprint_scores_everything_anew(table):
    run = table.plan(images(3), **WAY)
    score_all(run)
    run.close(0)
    assert table.plan(images(3), **{**WAY, "fingerprint": "f2"}).n_images == 3


def test_a_named_run_that_is_closed_is_not_planned_again(table):
    run = table.plan(images(1), name="monday", **WAY)
    score_all(run, fails("0000"))
    run.close(0)
    assert table.plan(unlisted(), name="monday", **WAY) is None
    assert table.plan(images(1), name="tuesday", **WAY).n_images == 1


def test_latest_prefers_settled_rows_then_later_runs(table):
    first = table.plan(images(3), **WAY)
    score_all(first, fails("0002"))
    first.close(0)
    second = table.plan(images(3, "v2"), **WAY)
    score_all(second, lambda row: {"forgery_score": 0.9, **fails("0001", "0002")(row)})
    second.close(0)
    runs = {row["image_uri"][8:12]: row["run"] for row in rows(table)}
    assert runs == {"0000": 2, "0001": 1, "0002": 2}
    assert len(rows(table, latest=False)) == 6


def test_rows_are_chosen_by_fingerprint(table):
    for fingerprint in ("f1", "f2"):
        run = table.plan(images(2), **{**WAY, "fingerprint": fingerprint})
        score_all(run)
        run.close(0)
    assert [row["run"] for row in rows(table)] == [1, 1, 2, 2]
    assert [row["run"] for row in rows(table, fingerprint="f1")] == [1, 1]


def test_columns_that_older_rows_lack_are_null(table, monkeypatch):
    score_all(table.plan(images(2), **WAY))
    monkeypatch.setattr(reader, "ROW_SCHEMA", ROW_SCHEMA.append(pa.field("novel", pa.list_(pa.string()))))
    assert [(row["status"], row["novel"]) for row in rows(table)] == [("scored", None)] * 2
    assert rows(table, columns=["novel", "shard"]) == [{"novel": None, "shard": 0}] * 2


def test_fields_of_faces_that_older_rows_lack_are_null(table, monkeypatch):
    run = table.plan(images(1), **WAY)
    face = {
        "box": dict.fromkeys(("left", "top", "right", "bottom"), 0),
        "status": "scored",
        "crop_sha256": "c",
    }
    run.commit(0, rows_of(run, 0, lambda row: {"faces": [face]}), writer="w", engine={})
    index = ROW_SCHEMA.get_field_index("faces")
    novel = pa.field("faces", pa.list_(pa.struct([*FACE, pa.field("novel", pa.string())])))
    monkeypatch.setattr(reader, "ROW_SCHEMA", ROW_SCHEMA.set(index, novel))
    (row,) = rows(table)
    assert (row["faces"][0]["crop_sha256"], row["faces"][0]["novel"]) == ("c", None)


def test_rows_are_filtered_by_status_and_verdict(table):
    run = table.plan(images(4), **WAY)
    score_all(
        run, lambda row: {"verdict": "fake"} if row["image_uri"].endswith("1.jpg") else fails("0002")(row)
    )
    assert [row["image_uri"][8:12] for row in rows(table, statuses=["fetch_failed"])] == ["0002"]
    assert [row["image_uri"][8:12] for row in rows(table, verdicts=["fake"])] == ["0001"]
    assert rows(table, verdicts=["fake"], columns=["image_uri"]) == [{"image_uri": "s3://in/0001.jpg"}]


def test_readers_see_only_committed_shards_of_a_run_that_goes_on(table):
    run = table.plan(images(6), shard_size=2, **WAY)
    run.commit(2, rows_of(run, 2), writer="w", engine={})
    table.store.write("runs/1/verdicts/000000-stray.parquet", b"half a file")
    assert {row["shard"] for row in rows(table)} == {2}
    assert not any(finding.problem for finding in verify(table))


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


def test_reading_needs_a_table(tmp_path):
    with pytest.raises(TableError, match="no verdict table"):
        VerdictTable.open(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"1")
    for create in (True, False):
        with pytest.raises(TableError, match=r"holiday\.jpg"):
            VerdictTable.open(str(tmp_path), create=create)
    with pytest.raises(ConfigurationError):
        VerdictTable.open("gs://bucket/out", create=True)


def test_a_table_of_a_later_version_is_refused(table):
    table.store.write("ffaa-table.json", json.dumps({"format": "ffaa-verdict-table", "version": 99}).encode())
    with pytest.raises(TableError, match="version 99"):
        VerdictTable.open(table.uri)


def damage(table, glob, change):
    (path,) = sorted(table_path(table).glob(glob))[:1]
    path.write_bytes(change(path.read_bytes()))


def table_path(table):
    from pathlib import Path

    return Path(table.uri)


def flip_last(data):
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


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
    "a marker names another's file": (
        "runs/1/commits/000000.json",
        lambda data: data.replace(b'"shard":0', b'"shard":1'),
        "planned is",
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


def problems_of(table):
    return [finding.text for finding in verify(table) if finding.problem]


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


def test_readers_refuse_a_strange_file_among_the_markers(table):
    run = table.plan(images(1), **WAY)
    table.store.write("runs/1/commits/0.json", b"")
    with pytest.raises(CorruptTableError, match=r"runs/1/commits/0\.json is no commit marker"):
        run.open_shards()


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


def test_a_plan_that_nobody_sealed_is_no_problem(table):
    table.store.write("runs/1/plan/someone/000000.parquet", b"half a plan")
    assert list(verify(table)) == []
    assert table.plan(images(1), **WAY).ordinal == 1


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


def test_a_damaged_data_file_is_told_by_its_name(table):
    score_all(table.plan(images(1), **WAY))
    damage(table, "runs/1/verdicts/*", lambda data: data[:-20])
    with pytest.raises(CorruptTableError, match=r"000000-.*is damaged: .*ffaa table verify"):
        rows(table)


def test_verify_finds_a_missing_data_file(table):
    run = table.plan(images(4), shard_size=2, **WAY)
    score_all(run)
    next(table_path(table).glob("runs/1/verdicts/000001-*")).unlink()
    (problem,) = [finding.text for finding in verify(table) if finding.problem]
    assert "shard 1" in problem
    assert "missing" in problem
