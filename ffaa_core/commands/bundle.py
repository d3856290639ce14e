"""Make a model bundle: everything that scoring needs, in one folder.

A bundle is given to other commands with --bundle or in the environment variable FFAA_BUNDLE.
"""

import argparse
from pathlib import Path

from ffaa_core.errors import ConfigurationError

DEMO = """\
Make a small bundle of random weights in the layouts of the real ones: everything
runs with it, without a download, and its verdicts mean nothing. The same seed
makes the same bundle."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    subcommands = parser.add_subparsers(metavar="SUBCOMMAND", required=True)
    demo = subcommands.add_parser(
        "demo",
        help="make a small bundle of random weights, to try the software; its verdicts mean nothing",
        description=DEMO,
        epilog=parser.epilog,
        formatter_class=parser.formatter_class,
    )
    demo.add_argument("directory", metavar="DIR", type=Path, help="folder to make; must be new or empty")
    demo.add_argument("--seed", type=int, default=0, help="seed of the random weights (default: 0)")
    demo.set_defaults(make=_demo)


def run(args: argparse.Namespace) -> int:
    """Do what the chosen subcommand says."""
    args.make(args)
    return 0


def _demo(args: argparse.Namespace) -> None:
    from ffaa_core.bundle.demo import write_demo_bundle

    if args.directory.exists() and (not args.directory.is_dir() or any(args.directory.iterdir())):
        raise ConfigurationError(f"{args.directory} exists and is not an empty folder: give a new one")
    bundle = write_demo_bundle(args.directory, args.seed)
    print(f"Bundle in {bundle.path}:")
    for part, digest in sorted(bundle.digests.items()):
        print(f"  {part:8} sha256 {digest}")
    print(f"WARNING: {bundle.warning}")
