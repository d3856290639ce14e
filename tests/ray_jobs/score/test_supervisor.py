"""The process that `ffaa score` is, and the one below it that does the work and may end in any way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

BEGINNING = """
import os, signal, sys, time
from ffaa_core.errors import FFAAError
from ray_jobs.score.supervisor import supervised
try:
    code = supervised()
except FFAAError as error:
    sys.exit(f"{error.exit_code} {error}")
if code is not None:
    sys.exit(code)
print("at work", flush=True)
"""


@pytest.fixture
def started() -> Iterator["list[subprocess.Popen[str]]"]:
    commands: list[subprocess.Popen[str]] = []
    yield commands
    for command in commands:
        command.kill()
        command.communicate()


def start(started: "list[subprocess.Popen[str]]", work: str) -> "subprocess.Popen[str]":
    """A command that is at its work."""
    command = subprocess.Popen(
        [sys.executable, "-c", BEGINNING + work],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started.append(command)
    assert command.stdout
    assert command.stdout.readline() == "at work\n"
    return command


def told(command: "subprocess.Popen[str]") -> str:
    return command.communicate(timeout=30)[1]


@pytest.mark.parametrize("code", [0, 1, 3, 75])
def test_the_exit_code_of_the_work_is_that_of_the_command(
    started: "list[subprocess.Popen[str]]", code: int
) -> None:
    command = start(started, f"sys.exit({code})")
    assert told(command) == ""
    assert command.returncode == code


def test_a_bug_is_shown_as_one(started: "list[subprocess.Popen[str]]") -> None:
    command = start(started, "raise KeyError('bug')")
    assert "KeyError: 'bug'" in told(command)
    assert command.returncode == 1


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("os._exit(1)", "ended by a library with code 1"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("os.abort()", "killed by SIGABRT"),
    ],
)
def test_work_that_ends_without_a_word_is_to_be_tried_again(
    started: "list[subprocess.Popen[str]]", end: str, how: str
) -> None:
    assert told(start(started, end)).startswith(f"75 the process of the run was {how}")


def test_the_end_of_a_library_that_means_to_try_again_is_taken_as_it_is(
    started: "list[subprocess.Popen[str]]",
) -> None:
    command = start(started, "os._exit(75)")
    assert told(command) == ""
    assert command.returncode == 75


def test_a_signal_is_passed_on_once_also_if_the_whole_group_gets_it(
    started: "list[subprocess.Popen[str]]",
) -> None:
    command = start(
        started,
        "got = []\n"
        "for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, lambda n, _: got.append(n))\n"
        "print('ready', flush=True)\n"
        "while signal.SIGINT not in got: time.sleep(0.01)\n"
        "sys.exit(len(got))",
    )
    assert command.stdout
    assert command.stdout.readline() == "ready\n"
    os.killpg(command.pid, signal.SIGTERM)
    time.sleep(0.5)
    os.killpg(command.pid, signal.SIGINT)
    assert told(command) == ""
    assert command.returncode == 2


def test_a_signal_that_the_work_dies_of_is_told_as_a_stop(started: "list[subprocess.Popen[str]]") -> None:
    command = start(started, "time.sleep(60)")
    command.terminate()
    assert told(command).startswith("75 stopped by SIGTERM")


def test_the_work_ends_with_a_killed_command(started: "list[subprocess.Popen[str]]") -> None:
    command = start(started, "time.sleep(60)")
    (worker,) = psutil.Process(command.pid).children()
    command.kill()
    worker.wait(10)
    assert not worker.is_running()
