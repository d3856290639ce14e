"""Keeping libraries' messages away from the user."""

import os
import subprocess
import sys

NOISY = """
import os, sys
from ffaa_core.diversion import libraries_diverted
with libraries_diverted(verbose=sys.argv[1] == "verbose") as ours:
    os.write(2, b"noise of a library\\n")
    print("more of it")
    print("our words", file=ours)
    if sys.argv[2] == "fails":
        raise RuntimeError("broken")
"""


def noisy(verbosity: str, outcome: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", NOISY, verbosity, outcome], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_libraries_messages_are_kept_away() -> None:
    assert noisy("quiet", "works") == "our words\n"


def test_verbose_shows_them() -> None:
    assert "noise of a library" in noisy("verbose", "works")


def test_a_failure_names_the_file_that_holds_them() -> None:
    told = noisy("quiet", "fails")
    log = told.split("messages are in ")[1].splitlines()[0]
    with open(log) as file:
        assert sorted(file.read().splitlines()) == ["more of it", "noise of a library"]
    os.unlink(log)
