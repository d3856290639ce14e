"""Make a model bundle: everything that scoring needs, in one folder.

A bundle is given to other commands with --bundle or in the environment variable FFAA_BUNDLE.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ffaa_core.errors import ConfigurationError

if TYPE_CHECKING:
    from ffaa_core.bundle import Bundle

DEMO = """\
Make a small bundle of random weights in the layouts of the real ones: everything
runs with it, without a download, and its verdicts mean nothing. The same seed
makes the same bundle."""

CONVERT = """\
Make a bundle of published weights. Everything is checked before anything is
written: whatever is missing, unknown or of the wrong shape is named.

A SRC is a folder or file, s3://bucket/prefix, or a model of the Hugging Face hub:
name/model, name/model@revision, name/model/file. Published FFAA-v1:

  ffaa bundle convert --mllm thu-huangzc/ffaa-mistral-7b \\
    --mids thu-huangzc/ffaa-mistral-7b/mids.pth \\
    --vision openai/clip-vit-large-patch14-336 --text google-t5/t5-base DIR

What LoRA training wrote, not merged yet:

  ffaa bundle convert --mllm llava-lora --base liuhaotian/llava-v1.6-mistral-7b \\
    --mids mids.pth --vision CLIP --text T5 DIR"""

FETCH = """\
Fetch a bundle from S3 into the cache ($XDG_CACHE_HOME/ffaa, by default
~/.cache/ffaa) and verify it, so that commands given the same URL find it there."""


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
    demo.add_argument("--seed", type=int, default=0, help="seed of the random weights (default: 0)")
    demo.set_defaults(make=_demo)
    convert = subcommands.add_parser(
        "convert",
        help="make a bundle of published weights",
        description=CONVERT,
        epilog=parser.epilog,
        formatter_class=parser.formatter_class,
    )
    convert.add_argument(
        "--mllm",
        metavar="SRC",
        required=True,
        help="the LLaVA: a whole checkpoint in its original layout or in that of Transformers; with --base, "
        "the folder that LoRA training wrote",
    )
    convert.add_argument("--base", metavar="SRC", help="the checkpoint that --mllm was trained from")
    convert.add_argument(
        "--adapter", metavar="SRC", help="a LoRA adapter of --mllm, with its non_lora_trainables.bin"
    )
    convert.add_argument(
        "--merge", action="store_true", help="add the adapter to the weights (default: keep it as a part)"
    )
    convert.add_argument("--mids", metavar="SRC", required=True, help="MIDS: mids.pth")
    convert.add_argument(
        "--vision",
        metavar="SRC",
        required=True,
        help="CLIP ViT-L/14-336 for MIDS, of Transformers, open_clip or OpenAI; also the vision tower of an "
        "--mllm without one",
    )
    convert.add_argument("--text", metavar="SRC", required=True, help="T5-base, of Transformers")
    convert.set_defaults(make=_convert)
    for subcommand in (demo, convert):
        subcommand.add_argument(
            "directory", metavar="DIR", type=Path, help="folder to make; must be new or empty"
        )
    fetch = subcommands.add_parser(
        "fetch",
        help="fetch a bundle from S3 into the cache",
        description=FETCH,
        epilog=parser.epilog,
        formatter_class=parser.formatter_class,
    )
    fetch.add_argument("url", metavar="URL", help="s3://bucket/prefix")
    fetch.add_argument(
        "--sha256", metavar="HEX", help="of the bundle's bundle.json; refuse any other (default: take any)"
    )


def run(args: argparse.Namespace) -> int:
    """Do what the chosen subcommand says."""
    bundle = _fetch(args) if "url" in args else _make(args)
    print(f"Bundle in {bundle.path}:")
    for part, digest in sorted(bundle.digests.items()):
        print(f"  {part:8} sha256 {digest}")
    if bundle.warning:
        print(f"WARNING: {bundle.warning}")
    return 0


def _fetch(args: argparse.Namespace) -> "Bundle":
    from ffaa_core.bundle import Bundle
    from ffaa_core.bundle.fetch import fetch

    return Bundle.open(fetch(args.url, args.sha256))


def _make(args: argparse.Namespace) -> "Bundle":
    if args.directory.exists() and (not args.directory.is_dir() or any(args.directory.iterdir())):
        raise ConfigurationError(f"{args.directory} exists and is not an empty folder: give a new one")
    made: Bundle = args.make(args)
    return made


def _demo(args: argparse.Namespace) -> "Bundle":
    from ffaa_core.bundle.demo import write_demo_bundle

    return write_demo_bundle(args.directory, args.seed)


def _convert(args: argparse.Namespace) -> "Bundle":
    from rich.console import Console
    from rich.progress import Progress

    if args.base and args.adapter:
        raise ConfigurationError(
            "--base says that --mllm is an adapter, and --adapter names another: give one of them"
        )
    whole, adapter = (args.base, args.mllm) if args.base else (args.mllm, args.adapter)
    if args.merge and not adapter:
        raise ConfigurationError("--merge needs an adapter: give --adapter, or --base")

    from ffaa_core.convert.convert import Conversion, Sources
    from ffaa_core.convert.sources import find_source

    console = Console(stderr=True)
    sources = Sources(  # the largest last: a wrong name is told before it is fetched
        text=find_source(args.text),
        vision=find_source(args.vision),
        mids=find_source(args.mids),
        adapter=find_source(adapter) if adapter else None,
        mllm=find_source(whole),
    )
    console.print("checking names, shapes and configurations")
    conversion = Conversion(sources, merge=args.merge)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("writing tensors of the multimodal LLM", total=conversion.steps)
        return conversion.write(args.directory, advance=lambda: progress.advance(task))
