"""`ffaa bundle demo`: the same bundle in every process, said to mean nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ffaa_core.bundle import Bundle
from ffaa_core.cli import main


def test_another_process_makes_the_same_bundle_and_says_what_it_is_worth(
    demo_bundle: Bundle, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ffaa_core.cli", "bundle", "demo", str(tmp_path / "again")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    bundle = Bundle.open(tmp_path / "again")
    bundle.verify()
    assert bundle.digests == demo_bundle.digests
    assert "verdicts mean nothing" in done.stdout
    assert all(digest in done.stdout for digest in bundle.digests.values())
    assert done.stderr == ""


def test_another_seed_makes_other_weights(demo_bundle: Bundle, tmp_path: Path) -> None:
    assert main(["bundle", "demo", str(tmp_path / "other"), "--seed", "7"]) == 0
    other = Bundle.open(tmp_path / "other")
    assert all(other.digests[part] != demo_bundle.digests[part] for part in demo_bundle.digests)
    assert other.provenance["seed"] == 7


def test_help_tells_the_caveat_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bundle", "demo", "--help"])
    text = capsys.readouterr().out
    assert "A verdict supports a decision" in text
    assert "exit codes: 0 done" in text


def test_a_folder_in_use_is_refused_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("precious")
    assert main(["bundle", "demo", str(tmp_path)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
