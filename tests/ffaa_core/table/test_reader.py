"""Reading rows: as they were committed, the latest of each image, and those asked for."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from ffaa_core.errors import CorruptTableError
from ffaa_core.table import data_files, reader
from ffaa_core.table.schema import FACE, ROW_SCHEMA
from ffaa_core.table.verify import verify
from tests.ffaa_core.table.damage import damage
from tests.ffaa_core.table.shards import WAY, fails, images, rows, rows_of, score_all


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


def test_a_clock_that_was_set_back_does_not_make_older_rows_count(table):
    for year, version in ((2030, "v1"), (1970, "v2")):
        run = table.plan(images(2, version), **WAY)
        score_all(run, lambda row, year=year: {"scored_at": datetime(year, 1, 1, tzinfo=UTC)})
        run.close(0)
    assert [(row["run"], row["image_version"]) for row in rows(table)] == [(2, "v2")] * 2
    assert table.plan(images(2, "v2"), **WAY) is None


def test_rows_are_chosen_by_fingerprint(table):
    for fingerprint in ("f1", "f2"):
        run = table.plan(images(2), **{**WAY, "fingerprint": fingerprint})
        score_all(run)
        run.close(0)
    assert [row["run"] for row in rows(table)] == [1, 1, 2, 2]
    assert [row["run"] for row in rows(table, fingerprint="f1")] == [1, 1]


def test_columns_that_older_rows_lack_are_null(table, monkeypatch):
    score_all(table.plan(images(2), **WAY))
    for module in (data_files, reader):
        monkeypatch.setattr(module, "ROW_SCHEMA", ROW_SCHEMA.append(pa.field("novel", pa.list_(pa.string()))))
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
    for module in (data_files, reader):
        monkeypatch.setattr(module, "ROW_SCHEMA", ROW_SCHEMA.set(index, novel))
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


def test_readers_refuse_a_strange_file_among_the_markers(table):
    run = table.plan(images(1), **WAY)
    table.store.write("runs/1/commits/0.json", b"")
    with pytest.raises(CorruptTableError, match=r"runs/1/commits/0\.json is no commit marker"):
        run.open_shards()


def test_a_damaged_data_file_is_told_by_its_name(table):
    score_all(table.plan(images(1), **WAY))
    damage(table, "runs/1/verdicts/*", lambda data: data[:-20])
    with pytest.raises(CorruptTableError, match=r"000000-.*is damaged: .*ffaa table verify"):
        rows(table)


def test_small_files_are_read_by_one_request_and_large_ones_in_part(table, monkeypatch):
    score_all(table.plan(images(4), shard_size=2, **WAY))
    expected = rows(table, columns=["image_uri"])
    assert len(expected) == 4
    monkeypatch.setattr(type(table.store), "open", None)
    assert rows(table, columns=["image_uri"]) == expected
    monkeypatch.undo()
    size = next(table.runs()[0].markers()).size_bytes
    monkeypatch.setattr(data_files, "WHOLE", size - 1)
    read = type(table.store).read
    monkeypatch.setattr(
        type(table.store), "read", lambda store, key: read(store, key) if "/verdicts/" not in key else 1 / 0
    )
    assert rows(table, columns=["image_uri"]) == expected
