"""`ffaa table show` and `ffaa table verify`, as a user calls them."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from ffaa_core.cli import main
from ffaa_core.commands.show import CAVEAT, HEADINGS, Selection, show
from ffaa_core.table import PlannedImage, VerdictTable
from ffaa_core.table.schema import EXPORT_SCHEMA
from tests.ffaa_core.table.shards import rows_of, score_all

HOSTILE = "\x1b]0;owned\x07[bold]=cmd|' /C calc'!A0"


def face(score, verdict, kind=None, reasoning="skin is smooth"):
    return {
        "box": {"left": 0, "top": 0, "right": 9, "bottom": 9},
        "status": "scored",
        "crop_sha256": "c",
        "verdict": verdict,
        "forgery_type": kind,
        "forgery_score": score,
        "reasoning": reasoning,
        "answers": [],
        "crop": b"a picture of a person",
    }


COLUMNS = {
    "real": {"faces": [face(0.25, "real")]},
    "fake": {
        "verdict": "fake",
        "forgery_score": 0.9,
        "contested": True,
        "n_faces": 2,
        "faces": [face(0.1, "real"), face(0.9, "fake", "identity_exchange", "edges\nblur [red]" + HOSTILE)],
    },
    "gone": {"status": "fetch_failed", "verdict": None, "status_detail": "no route", "forgery_score": None},
    "=name": {"status": "no_face", "verdict": None, "n_faces": 0},
}


@pytest.fixture
def output(tmp_path):
    table = VerdictTable.open(str(tmp_path / "out"), create=True)
    listing = [PlannedImage(image_uri=f"s3://in/{name}", planned_version="=1") for name in COLUMNS]
    for _ in range(2):
        run = table.plan(listing, fingerprint="f", settings={})
        score_all(run, lambda row: COLUMNS[row["image_uri"].rpartition("/")[2]])
        run.close(0)
    return table.uri


def printed(capsysbinary, *arguments):
    assert main(["table", *arguments]) == 0
    return capsysbinary.readouterr().out


def test_a_pipe_gets_tab_separated_lines(output, capsysbinary):
    lines = printed(capsysbinary, "show", output).decode().splitlines()
    assert lines[0].split("\t") == list(HEADINGS)
    cells = {line.split("\t")[0]: line.split("\t")[1:] for line in lines[1:5]}
    assert cells["real"] == ["scored", "real", "0.250", "1", "", "skin is smooth"]
    assert cells["fake"][:5] == ["scored", "fake (contested)", "0.900", "2", "identity exchange"]
    assert cells["gone"] == ["fetch_failed", "", "", "1", "", "no route"]
    assert lines[6:] == [
        "4 images: 1 fetch_failed, 1 no_face, 2 scored, 1 fake, 1 real, 1 contested",
        CAVEAT,
    ]


def on_terminal(output, **options):
    screen = io.StringIO()
    table = VerdictTable.open(output)
    show(
        Selection(table=table, **options), Console(file=screen, force_terminal=True, width=200, no_color=True)
    )
    return screen.getvalue()


def test_a_terminal_gets_a_table(output):
    text = on_terminal(output)
    assert "fake" in text
    assert "exchange" in text
    assert "edges blur [red]" in text
    assert CAVEAT in text


def test_a_terminal_gets_no_control_sequences_of_others(output):
    assert "\x1b]" not in on_terminal(output)
    assert "\x07" not in on_terminal(output)


def test_a_terminal_is_told_of_rows_beyond_the_limit(output):
    text = on_terminal(output, limit=3)
    assert "the first 3 of 4 are shown" in text
    assert "4 images" in text


def test_rows_are_chosen_by_status_and_verdict(output, capsysbinary):
    names = ["show", output, "--format", "json"]
    chosen = printed(capsysbinary, *names, "--status", "no_face,fetch_failed").splitlines()
    assert [json.loads(line)["image_uri"] for line in chosen] == ["s3://in/=name", "s3://in/gone"]
    chosen = printed(capsysbinary, *names, "--verdict", "fake").splitlines()
    assert [json.loads(line)["image_uri"] for line in chosen] == ["s3://in/fake"]
    assert len(printed(capsysbinary, *names, "--limit", "2").splitlines()) == 2


def test_all_shows_superseded_rows(output, capsysbinary):
    rows = [
        json.loads(line)
        for line in printed(capsysbinary, "show", output, "--all", "--format", "json").splitlines()
    ]
    assert sorted(row["attempts"] for row in rows if row["image_uri"] == "s3://in/gone") == [1, 2]


@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
def test_pictures_are_in_no_export(output, capsysbinary, kind):
    data = printed(capsysbinary, "show", output, "--format", kind)
    assert b"s3://in/real" in data
    assert b"a picture" not in data


def test_json_is_whole_and_cannot_steer_a_terminal(output, capsysbinary):
    data = printed(capsysbinary, "show", output, "--format", "json", "--verdict", "fake")
    assert b"\x1b" not in data
    assert json.loads(data)["faces"][1]["reasoning"].endswith(HOSTILE)


def test_csv_holds_no_formula(output, capsysbinary):
    data = printed(capsysbinary, "show", output, "--format", "csv").decode()
    rows = list(csv.DictReader(io.StringIO(data)))
    assert len(rows) == 4
    assert {row["planned_version"] for row in rows} == {"'=1"}
    assert (
        json.loads(next(row for row in rows if row["verdict"] == "fake")["faces"])[0]["forgery_score"] == 0.1
    )


def test_parquet_has_the_schema_of_rows_without_pictures(output, capsysbinary, tmp_path):
    printed(capsysbinary, "show", output, "--to", str(tmp_path / "rows.parquet"))
    exported = pq.read_table(tmp_path / "rows.parquet")
    assert exported.schema.equals(EXPORT_SCHEMA)
    assert len(exported) == 4


def test_a_file_whose_format_nobody_told_is_refused(output, capsys):
    assert main(["table", "show", output, "--to", "rows.xlsx"]) == 2
    assert "--format" in capsys.readouterr().err


def test_verify_says_ok_run_by_run(output, capsysbinary):
    lines = printed(capsysbinary, "verify", output).decode().splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "ok", "the"]


def test_verify_exits_2_on_a_problem(output, tmp_path, capsys):
    next((tmp_path / "out").glob("runs/1/verdicts/*")).write_bytes(b"")
    assert main(["table", "verify", output]) == 2
    assert "PROBLEM run 1: shard 0" in capsys.readouterr().out


def test_a_table_without_rows_is_shown(tmp_path, capsysbinary):
    VerdictTable.open(str(tmp_path / "out"), create=True)
    assert b"0 images: nothing yet" in printed(capsysbinary, "show", str(tmp_path / "out"))
    empty = printed(capsysbinary, "show", str(tmp_path / "out"), "--format", "parquet")
    assert len(pq.read_table(pa.BufferReader(empty))) == 0


def test_a_run_that_goes_on_is_shown(tmp_path, capsysbinary):
    table = VerdictTable.open(str(tmp_path / "out"), create=True)
    listing = [PlannedImage(image_uri=f"s3://in/{i}") for i in range(4)]
    run = table.plan(listing, fingerprint="f", settings={}, shard_size=2)
    run.commit(1, rows_of(run, 1), writer="w", engine={})
    assert b"2 images" in printed(capsysbinary, "show", table.uri)
    assert b"1 of its shards" in printed(capsysbinary, "verify", table.uri)
