"""Show, verify or tidy a verdict table.

OUTPUT is the folder or s3://bucket/prefix that `ffaa score` wrote to. Every command may be used while it is
being written to; `show` and `verify` see whole shards only.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from ffaa_core.commands.options import statuses
from ffaa_core.errors import ConfigurationError
from ffaa_core.verdict import Status

FORMATS = ("json", "csv", "parquet")
VERDICTS = ("real", "fake")

SHOW = """\
Show the latest row of every image under the last run's fingerprint: a table in
a terminal, tab-separated lines in a pipe (totals go to standard error), or
another format. Crops and heatmaps, being pictures of people, are left out."""

VERIFY = """\
Read the whole table and check it: digests of plans and data files, counts, one
row per planned image. The exit code is 2 if anything is wrong."""


ABANDON = """\
Close the open run as it is: shards that are committed keep their rows, the
others never get any in this run, and the next `ffaa score` plans their images
again. For a run that cannot or shall not be finished, be it that every shard is
committed and only its end is missing. The run ends with 75 then, however many of
its images failed, and whoever still works on it stops with that. If the command
was interrupted, the same one goes on."""

GC = """\
Delete files that nothing is read from and nothing ever will be: those of
writers who lost a shard, or the closing of a run, to another, which restarts
leave behind. Shards that are not committed yet keep all their files."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    subcommands = parser.add_subparsers(metavar="SUBCOMMAND", required=True)

    def add(
        name: str, do: Callable[[argparse.Namespace], int], summary: str, description: str
    ) -> argparse.ArgumentParser:
        subcommand = subcommands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=parser.epilog,
            formatter_class=parser.formatter_class,
        )
        subcommand.add_argument("output", metavar="OUTPUT", help="the table: a folder or s3://bucket/prefix")
        subcommand.set_defaults(do=do)
        return subcommand

    _add_show_options(add("show", _show, "show the rows, in a terminal or as JSON, CSV or Parquet", SHOW))
    add("verify", _verify, "check every digest, count and key", VERIFY)
    add("abandon", _abandon, "close the open run without the shards that are not committed", ABANDON)
    gc = add("gc", _gc, "delete the files of writers who lost their shard to another", GC)
    gc.add_argument("--dry-run", action="store_true", help="only say what would be deleted")


def run(args: argparse.Namespace) -> int:
    """Do what the chosen subcommand says."""
    return int(args.do(args))


def _add_show_options(show: argparse.ArgumentParser) -> None:
    show.add_argument(
        "--status",
        type=statuses,
        metavar="STATUS,...",
        help=f"only images of these statuses ({', '.join(Status)})",
    )
    show.add_argument("--verdict", choices=VERDICTS, help="only images with this verdict")
    show.add_argument(
        "--fingerprint", metavar="F", help="rows under this fingerprint, or the one that begins so"
    )
    show.add_argument(
        "--all",
        action="store_true",
        help="superseded rows too, not only each image's latest, and without --fingerprint those under all",
    )
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


def _show(args: argparse.Namespace) -> int:
    from ffaa_core.commands.export import export
    from ffaa_core.commands.selection import Selection, find_fingerprint
    from ffaa_core.commands.show import show
    from ffaa_core.table import VerdictTable

    kind = _format(args.format, args.to)
    table = VerdictTable.open(args.output)
    everything = args.all and args.fingerprint is None
    selection = Selection(
        table=table,
        fingerprint=None if everything else find_fingerprint(table, args.fingerprint),
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

    findings = problems = 0
    for finding in verify(VerdictTable.open(args.output)):
        findings, problems = findings + 1, problems + finding.problem
        print(f"{'PROBLEM' if finding.problem else 'ok':8}{printable(finding.text)}", flush=True)
    if problems:
        print("1 problem found" if problems == 1 else f"{problems} problems found")
        return 2
    print("the table is as it was committed" if findings else "no run yet")
    return 0


def _abandon(args: argparse.Namespace) -> int:
    from ffaa_core.printable import printable
    from ffaa_core.table import VerdictTable

    table = VerdictTable.open(args.output)
    run = table.open_run()
    if run is None:
        print(f"no run is open in {table.uri}: there is nothing to abandon")
        return 0
    n_rows = run.abandon().counts.images
    named = f" ({printable(run.plan.name)})" if run.plan.name else ""
    rest = "" if n_rows == run.n_images else "; the next `ffaa score` plans the others again"
    print(f"run {run.ordinal}{named} is closed: {n_rows} of its {run.n_images} images have a row{rest}")
    return 0


def _gc(args: argparse.Namespace) -> int:
    from ffaa_core.table import VerdictTable
    from ffaa_core.table.garbage import collect_garbage

    table = VerdictTable.open(args.output)
    n_files = n_bytes = 0
    for lost in collect_garbage(table, dry_run=args.dry_run):
        print(f"{lost.size:>12,} bytes  {lost.uri}", flush=True)
        n_files, n_bytes = n_files + 1, n_bytes + lost.size
    did = "would be deleted" if args.dry_run else "deleted"
    print(f"{n_files} file{'' if n_files == 1 else 's'}, {n_bytes:,} bytes {did}")
    return 0


def _format(named: str | None, to: Path | None) -> str | None:
    if named or to is None:
        return named
    ending = to.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise ConfigurationError(f"--to {to} does not end in .json, .csv or .parquet: say --format too")
    return ending


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)
