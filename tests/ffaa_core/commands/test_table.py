"""The subcommands of `ffaa table`, as a user calls them."""

import csv
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from ffaa_core.cli import main
from ffaa_core.commands.selection import Selection
from ffaa_core.commands.show import CAVEAT, HEADINGS, show
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


def told(capsysbinary, *arguments):
    """What went to standard error."""
    assert main(["table", *arguments]) == 0
    return capsysbinary.readouterr().err.decode()


def test_a_pipe_gets_tab_separated_lines_and_nothing_else(output, capsysbinary):
    lines = printed(capsysbinary, "show", output).decode().splitlines()
    assert lines[0].split("\t") == list(HEADINGS)
    cells = {line.split("\t")[0].removeprefix("s3://in/"): line.split("\t")[1:] for line in lines[1:]}
    assert cells.keys() == COLUMNS.keys()
    assert cells["real"] == ["scored", "real", "0.250", "1", "", "skin is smooth"]
    assert cells["fake"][:5] == ["scored", "fake (contested)", "0.900", "2", "identity exchange"]
    assert cells["gone"] == ["fetch_failed", "", "", "1", "", "no route"]
    assert told(capsysbinary, "show", output).splitlines() == [
        "4 images: 1 fetch_failed, 1 no_face, 2 scored, 1 fake, 1 real, 1 contested",
        CAVEAT,
    ]


def on_terminal(output, *, width=200, **options):
    screen = io.StringIO()
    table = VerdictTable.open(output)
    show(
        Selection(table=table, **options),
        Console(file=screen, force_terminal=True, width=width, no_color=True),
    )
    return screen.getvalue()


def test_a_terminal_gets_a_table(output):
    text = on_terminal(output)
    assert "images below s3://in/\n" in text
    assert "fake*" in text
    assert "* contested" in text
    assert "exchange" in text
    assert "edges blur [red]" in text
    assert CAVEAT in text


def test_a_narrow_terminal_keeps_file_names_whole_and_says_what_it_leaves_out(tmp_path):
    names = [f"2026-11-0{day}/{i:03d}_identity_exchange.jpg" for day in (1, 2) for i in (7, 8)]
    table = table_of(tmp_path, [f"/photos/{name}" for name in names])
    lines = on_terminal(table.uri, width=80).splitlines()
    assert "images below /photos/2026-11-0" not in lines
    assert "images below /photos/" in lines
    column = "".join(line[:24].rstrip() for line in lines)
    assert all(name in column for name in names)
    assert "smooth" in "".join(lines)
    assert max(len(line) for line in lines if "\x1b" not in line) == 80
    assert "forgery types are shown from 100 columns on" in lines
    assert not any(
        line.startswith("forgery types") for line in on_terminal(table.uri, width=100).splitlines()
    )


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


def table_of(tmp_path, uris, **way):
    """A table with a closed run over these images."""
    table = VerdictTable.open(str(tmp_path / "table"), create=True)
    listing = [PlannedImage(image_uri=uri) for uri in uris]
    run = table.plan(listing, **{"fingerprint": "f", "settings": {}, **way})
    score_all(run, lambda row: {"faces": [face(0.25, "real")]})
    run.close(0)
    return table


@pytest.fixture
def two_fingerprints(tmp_path):
    for fingerprint in ("aa11", "ab22"):
        table = table_of(tmp_path, ["s3://in/1", "s3://in/2"], fingerprint=fingerprint)
    return table.uri


def fingerprints_shown(capsysbinary, *arguments):
    lines = printed(capsysbinary, "show", *arguments, "--format", "json").splitlines()
    return [json.loads(line)["fingerprint"] for line in lines]


def test_the_last_runs_fingerprint_is_shown_unless_another_is_named(two_fingerprints, capsysbinary):
    assert fingerprints_shown(capsysbinary, two_fingerprints) == ["ab22"] * 2
    assert fingerprints_shown(capsysbinary, two_fingerprints, "--fingerprint", "aa") == ["aa11"] * 2
    both = fingerprints_shown(capsysbinary, two_fingerprints, "--all")
    assert both == ["aa11", "aa11", "ab22", "ab22"]
    assert (
        fingerprints_shown(capsysbinary, two_fingerprints, "--all", "--fingerprint", "aa11") == ["aa11"] * 2
    )


@pytest.mark.parametrize("kind", [[], ["--format", "csv"]])
def test_other_fingerprints_are_named(two_fingerprints, capsysbinary, kind):
    text = told(capsysbinary, "show", two_fingerprints, *kind)
    assert "2 fingerprints: aa11 (run 1, 2 images planned), ab22 (run 2, 2 images planned)" in text
    assert "ab22 is shown" in text


@pytest.mark.parametrize(("prefix", "problem"), [("a", "2 fingerprints"), ("x", "no fingerprint")])
def test_a_fingerprint_that_is_not_one_is_refused(two_fingerprints, capsys, prefix, problem):
    assert main(["table", "show", two_fingerprints, "--fingerprint", prefix]) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert "it has aa11, ab22" in error


@pytest.mark.parametrize("kind", [[], ["--format", "json"]])
def test_what_the_bundle_warns_of_is_shown_with_the_rows(tmp_path, capsysbinary, kind):
    table = table_of(tmp_path, ["s3://in/1"], settings={"warning": "verdicts mean nothing"})
    assert "WARNING: verdicts mean nothing\n" in told(capsysbinary, "show", table.uri, *kind)
    assert "WARNING: verdicts mean nothing\n" in on_terminal(table.uri)


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


def test_a_folder_that_does_not_exist_is_a_wrong_option(output, capsys, tmp_path):
    assert main(["table", "show", output, "--to", str(tmp_path / "missing" / "rows.csv")]) == 2
    assert f"the folder {tmp_path}/missing does not exist" in capsys.readouterr().err


def test_a_damaged_table_is_blamed_and_the_file_of_before_is_kept(output, tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("of before")
    damaged = next((tmp_path / "out").glob("runs/2/verdicts/*"))
    damaged.write_bytes(damaged.read_bytes()[:-30])
    assert main(["table", "show", output, "--to", str(tmp_path / "rows.csv")]) == 2
    error = capsys.readouterr().err
    assert f"{damaged} is damaged" in error
    assert "rows.csv" not in error
    assert (tmp_path / "rows.csv").read_text() == "of before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "rows.csv"]


def test_an_export_may_go_to_a_pipe(output, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit((tmp_path / "pipe").read_bytes)
        assert main(["table", "show", output, "--format", "json", "--to", str(tmp_path / "pipe")]) == 0
    assert len(read.result().splitlines()) == 4
    assert (tmp_path / "pipe").is_fifo()


def test_a_folder_that_is_no_table_is_no_place_to_write_to(tmp_path, capsys):
    (tmp_path / "photo.jpg").write_bytes(b"1")
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert main(["table", "show", str(folder)]) == 2
        error = capsys.readouterr().err
        assert "name the folder that `ffaa score` wrote to" in error
        assert "new OUTPUT" not in error


@pytest.mark.parametrize("subcommand", ["show", "verify", "abandon", "gc"])
def test_help_tells_the_caveat_and_the_exit_codes(subcommand, capsys):
    with pytest.raises(SystemExit):
        main(["table", subcommand, "--help"])
    text = capsys.readouterr().out
    assert CAVEAT in text
    assert "exit codes: 0 done" in text


def test_verify_says_ok_run_by_run(output, capsysbinary):
    lines = printed(capsysbinary, "verify", output).decode().splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "ok", "the"]


def test_verify_exits_2_on_a_problem(output, tmp_path, capsys):
    next((tmp_path / "out").glob("runs/1/verdicts/*")).write_bytes(b"")
    assert main(["table", "verify", output]) == 2
    text = capsys.readouterr().out
    assert "PROBLEM run 1: shard 0" in text
    assert "\n1 problem found\n" in text


def test_a_table_without_rows_is_shown(tmp_path, capsysbinary):
    VerdictTable.open(str(tmp_path / "out"), create=True)
    assert "0 images: nothing yet" in told(capsysbinary, "show", str(tmp_path / "out"))
    assert printed(capsysbinary, "verify", str(tmp_path / "out")) == b"no run yet\n"
    empty = printed(capsysbinary, "show", str(tmp_path / "out"), "--format", "parquet")
    assert len(pq.read_table(pa.BufferReader(empty))) == 0


def test_a_run_that_goes_on_is_shown(tmp_path, capsysbinary):
    table = VerdictTable.open(str(tmp_path / "out"), create=True)
    listing = [PlannedImage(image_uri=f"s3://in/{i}") for i in range(4)]
    run = table.plan(listing, fingerprint="f", settings={}, shard_size=2)
    run.commit(1, rows_of(run, 1), writer="w", engine={})
    assert "2 images" in told(capsysbinary, "show", table.uri)
    assert b"1 of its shards" in printed(capsysbinary, "verify", table.uri)


@pytest.fixture
def half_done(tmp_path):
    """A table with an open run of two shards, of which one was committed twice."""
    table = VerdictTable.open(str(tmp_path / "out"), create=True)
    listing = [PlannedImage(image_uri=f"s3://in/{i}") for i in range(5)]
    run = table.plan(listing, fingerprint="f", settings={}, shard_size=3, name="monday")
    for writer in ("w", "loser"):
        run.commit(0, rows_of(run, 0), writer=writer, engine={})
    return table


def test_abandon_closes_the_open_run_once(half_done, capsysbinary):
    closed = (
        "run 1 (monday) is closed: 3 of its 5 images have a row; the next `ffaa score` plans the others again"
    )
    assert printed(capsysbinary, "abandon", half_done.uri).decode() == closed + "\n"
    assert b"no run is open" in printed(capsysbinary, "abandon", half_done.uri)
    assert b"1 of its shards were abandoned and have no rows\n" in printed(
        capsysbinary, "verify", half_done.uri
    )
    text = told(capsysbinary, "show", half_done.uri)
    assert "run 1 was abandoned: 2 of its images have no row from it\n3 images: 3 scored" in text


def test_abandon_closes_a_run_of_which_only_the_end_is_missing(half_done, capsysbinary):
    score_all(half_done.open_run())
    closed = b"run 1 (monday) is closed: 5 of its 5 images have a row\n"
    assert printed(capsysbinary, "abandon", half_done.uri) == closed
    assert half_done.open_run() is None
    assert "abandoned" not in told(capsysbinary, "show", half_done.uri)


def test_a_run_that_was_abandoned_is_not_spoken_of_once_another_followed(half_done, capsysbinary):
    half_done.open_run().abandon()
    listing = [PlannedImage(image_uri=f"s3://in/{i}") for i in range(5)]
    run = half_done.plan(listing, fingerprint="f", settings={})
    score_all(run)
    run.close(0)
    text = told(capsysbinary, "show", half_done.uri)
    assert "abandoned" not in text
    assert "5 images: 5 scored" in text


def test_gc_says_what_it_deletes(half_done, capsysbinary):
    files = sorted(half_done.store.list("runs/1/verdicts/"), key=lambda info: info.key)
    winner = next(half_done.open_run().markers()).file
    (lost,) = (info for info in files if info.key != winner)
    lines = printed(capsysbinary, "gc", half_done.uri, "--dry-run").decode().splitlines()
    assert [line.split() for line in lines] == [
        [f"{lost.size:,}", "bytes", lost.uri],
        ["1", "file,", f"{lost.size:,}", "bytes", "would", "be", "deleted"],
    ]
    assert half_done.store.exists(lost.key)
    assert b"1 file, " in printed(capsysbinary, "gc", half_done.uri)
    assert [info.key for info in half_done.store.list("runs/1/verdicts/")] == [winner]
    assert printed(capsysbinary, "gc", half_done.uri) == b"0 files, 0 bytes deleted\n"
