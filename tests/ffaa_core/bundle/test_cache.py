"""A folder of the cache is made by one, seen whole by all, and made again after a maker's death."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ffaa_core.bundle.cache import cache_directory, made_once
from ffaa_core.errors import ConfigurationError


def test_many_at_once_make_it_once_and_all_see_it_whole(tmp_path: Path) -> None:
    made: list[Path] = []
    seen: list[list[str]] = []

    def make(scratch: Path) -> None:
        made.append(scratch)
        (scratch / "first").write_text("1")
        time.sleep(0.2)
        (scratch / "second").write_text("2")

    def ask() -> None:
        directory = made_once(tmp_path / "cache" / "thing", make)
        seen.append(sorted(file.name for file in directory.iterdir()))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert seen == [["first", "second"]] * 8


def test_after_a_maker_was_killed_the_next_starts_afresh(tmp_path: Path) -> None:
    killed = (
        "import os, pathlib, sys\n"
        "from ffaa_core.bundle.cache import made_once\n"
        "def make(scratch):\n"
        "    (scratch / 'half').write_text('')\n"
        "    os.kill(os.getpid(), 9)\n"
        "made_once(pathlib.Path(sys.argv[1]), make)\n"
    )
    target = tmp_path / "thing"
    assert subprocess.run([sys.executable, "-c", killed, str(target)], check=False).returncode == -9
    assert not target.exists()
    made_once(target, lambda scratch: (scratch / "whole").write_text(""))
    assert [file.name for file in target.iterdir()] == ["whole"]


def test_what_fails_to_be_made_is_not_there(tmp_path: Path) -> None:
    def fail(scratch: Path) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        made_once(tmp_path / "thing", fail)
    assert not (tmp_path / "thing").exists()


def test_a_cache_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigurationError, match="XDG_CACHE_HOME"):
        made_once(tmp_path / "file" / "thing", lambda scratch: None)


def test_the_cache_is_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "ffaa"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_directory() == Path.home() / ".cache" / "ffaa"
