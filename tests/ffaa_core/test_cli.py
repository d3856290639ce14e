"""The `ffaa` command itself."""

import subprocess
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ffaa_core import cli
from ffaa_core.errors import ConfigurationError, RunConflictError

COMMAND = """
\"\"\"Say or fail.

The rest of the help.
\"\"\"
import ffaa_core.errors as errors

def add_arguments(parser):
    parser.add_argument("--fail")

def run(args):
    if args.fail:
        raise getattr(errors, args.fail)("it is wrong; do it right")
    print("said")
    return 3
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A command named `say`, in a module of its own."""
    name = f"say_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(COMMAND)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = EntryPoint(name="say", value=name, group="ffaa.commands")
    broken = EntryPoint(name="broken", value="no_such_module", group="ffaa.commands")
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry, broken])
    return name


def test_help_answers_in_under_half_a_second() -> None:
    def once() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "ffaa_core.cli", "--help"], check=True, capture_output=True)
        return time.perf_counter() - started

    assert min(once() for _ in range(5)) < 0.5


def test_help_loads_no_heavy_package() -> None:
    script = """
import sys
from ffaa_core.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print(sorted({"torch", "ray", "vllm", "pyarrow", "boto3", "numpy", "pydantic"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_lists_every_command_with_the_first_line_of_its_module(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    assert "Say or fail." in capsys.readouterr().out
    assert command not in sys.modules


def test_a_commands_own_help_has_the_whole_text(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["say", "--help"])
    told = capsys.readouterr().out
    assert "The rest of the help." in told
    assert "supports a decision; it does not make one" in told


def test_a_commands_exit_code_is_the_programs(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["say"]) == 3
    assert capsys.readouterr().out == "said\n"


@pytest.mark.parametrize("error", [ConfigurationError, RunConflictError])
def test_an_error_of_ours_is_one_line_and_its_exit_code(
    command: str, capsys: pytest.CaptureFixture[str], error: type[ConfigurationError]
) -> None:
    assert cli.main(["say", "--fail", error.__name__]) == error.exit_code
    assert capsys.readouterr().err == "ffaa: it is wrong; do it right\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["say", "--nonsense"]])
def test_wrong_usage_exits_2(command: str, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2


def test_a_reader_that_leaves_early_causes_no_traceback(tmp_path: Path) -> None:
    line = f"{sys.executable} -m ffaa_core.cli table show --help | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""
