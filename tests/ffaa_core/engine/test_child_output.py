"""What is kept of what the engine's processes print."""

import subprocess
import sys

from ffaa_core.engine.child_output import ChildOutput


def last_line_of(said: str) -> str:
    """After a process has said it, on stderr, and ended."""
    output = ChildOutput()
    with output.inherited():
        subprocess.run([sys.executable, "-c", f"import sys; sys.stderr.write({said!r})"], check=True)
    return output.last_line()


def test_the_last_thing_that_was_said_is_told_without_blank_lines() -> None:
    assert last_line_of("loading\nValueError: no room\n\n") == "ValueError: no room"
    assert last_line_of("") == ""


def test_torch_s_warning_at_the_end_of_a_process_hides_no_error() -> None:
    warning = "[rank0]:[W1120 23:26:01.714 ProcessGroupNCCL.cpp:1575] Warning: it was not called"
    assert last_line_of(f"AssertionError: no kernel\n{warning}\n") == "AssertionError: no kernel"
    assert last_line_of(f"AssertionError: no kernel\n{warning[8:]}\n") == "AssertionError: no kernel"
