"""Show or verify a verdict table.

OUTPUT is the folder or s3://bucket/prefix that `ffaa score` wrote to. Both commands may be used while it is
being written to: they see whole shards only.
"""

import argparse
from pathlib import Path

from ffaa_core.errors import ConfigurationError
from ffaa_core.verdict import Status

FORMATS = ("json", "csv", "parquet")
VERDICTS = ("real", "fake")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    subcommands = parser.add_subparsers(metavar="SUBCOMMAND", required=True)
    show = subcommands.add_parser(
        "show",
        help="show the rows, in a terminal or as JSON, CSV or Parquet",
        description="Show the latest row of every image: a table in a terminal, tab-separated lines in a "
        "pipe, or another format. Crops and heatmaps, being pictures of people, are left out of all of them.",
    )
    show.add_argument("output", metavar="OUTPUT", help="the table: a folder or s3://bucket/prefix")
    show.add_argument(
        "--status",
        type=_statuses,
        metavar="STATUS,...",
        help=f"only images of these statuses ({', '.join(Status)})",
    )
    show.add_argument("--verdict", choices=VERDICTS, help="only images with this verdict")
    show.add_argument("--all", action="store_true", help="superseded rows too, not only each image's latest")
    show.add_argument(
        "--limit", type=_positive, metavar="N", help="at most N rows (default: 100 in a terminal, else all)"
    )
    show.add_argument(
        "--format",
        choices=FORMATS,
        help="json: one object a line; csv: for spreadsheets, the faces as JSON; parquet: as stored",
    )
    show.add_argument(
        "--to",
        type=Path,
        metavar="FILE",
        help="write to FILE; its ending tells the format if --format does not",
    )
    show.set_defaults(do=_show)
    verify = subcommands.add_parser(
        "verify",
        help="check every digest, count and key",
        description="Read the whole table and check it: digests of plans and data files, counts, one row per "
        "planned image. Exit code 2 if anything is wrong.",
    )
    verify.add_argument("output", metavar="OUTPUT", help="the table: a folder or s3://bucket/prefix")
    verify.set_defaults(do=_verify)


def run(args: argparse.Namespace) -> int:
    """Do what the chosen subcommand says."""
    return int(args.do(args))


def _show(args: argparse.Namespace) -> int:
    from ffaa_core.commands.show import Selection, export, show
    from ffaa_core.table import VerdictTable

    kind = _format(args.format, args.to)
    selection = Selection(
        table=VerdictTable.open(args.output),
        latest=not args.all,
        statuses=args.status,
        verdicts=[args.verdict] if args.verdict else None,
        limit=args.limit,
    )
    if kind:
        export(selection, kind, args.to)
    else:
        show(selection)
    return 0


def _verify(args: argparse.Namespace) -> int:
    from ffaa_core.printable import printable
    from ffaa_core.table import VerdictTable
    from ffaa_core.table.verify import verify

    problems = 0
    for finding in verify(VerdictTable.open(args.output)):
        problems += finding.problem
        print(f"{'PROBLEM' if finding.problem else 'ok':8}{printable(finding.text)}", flush=True)
    print(f"{problems} problems found" if problems else "the table is as it was committed")
    return 2 if problems else 0


def _format(named: str | None, to: Path | None) -> str | None:
    if named or to is None:
        return named
    ending = to.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise ConfigurationError(f"--to {to} does not end in .json, .csv or .parquet: say --format too")
    return ending


def _statuses(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := sorted(set(names) - set(Status)):
        raise argparse.ArgumentTypeError(
            f"no such status: {', '.join(unknown)}; there are {', '.join(Status)}"
        )
    return names


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)
