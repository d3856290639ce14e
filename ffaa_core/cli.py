"""The `ffaa` command. Its subcommands are the modules of the entry-point group `ffaa.commands`.

A command is a module with `add_arguments(parser)` and `run(args) -> exit code`; the first line of its
docstring is its summary. Only the command that is called is imported, so that `ffaa --help` answers at once.
"""

import argparse
import ast
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from pathlib import Path

from ffaa_core.errors import FFAAError

EPILOG = """\
A verdict supports a decision; it does not make one.

exit codes: 0 done, 2 bad usage or configuration, 3 too many failures, 75 try again"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors of this project become one line on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {entry.name: entry for entry in entry_points(group="ffaa.commands")}
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    parser = _parser(commands, called)
    args = parser.parse_args(arguments)
    try:
        return int(args.run(args))
    except FFAAError as error:
        print(f"ffaa: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output left (`| head`): end quietly, also when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("ffaa: interrupted", file=sys.stderr)
        return 75


def _parser(commands: dict[str, EntryPoint], called: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ffaa",
        description="Say which faces in images are forged, and why.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ffaa {version('ffaa-batch')}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, entry in sorted(commands.items()):
        summary, description = _documentation(entry.module)
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=description,
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == called:
            module = importlib.import_module(entry.module)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def _documentation(module: str) -> tuple[str, str]:
    """First line and whole text of a module's docstring, without importing it."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return "(not installed)", ""
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0], text


if __name__ == "__main__":
    sys.exit(main())
