"""Options that several commands share. A dotted `dest` names the setting it overrides in the file."""

import argparse
from pathlib import Path
from typing import Any

from ffaa_core.verdict import Status


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which models to use, and the file that holds all other settings."""
    group = parser.add_argument_group("models and configuration")
    group.add_argument(
        "--bundle",
        metavar="DIR|URL",
        help="the models (default: $FFAA_BUNDLE, else a demo bundle whose verdicts mean nothing)",
    )
    group.add_argument("--config", type=Path, metavar="FILE", help="settings in YAML; options go before them")
    group.add_argument(
        "--adapter",
        dest="engine.adapter",
        choices=("auto", "live", "merged"),
        help="how the LoRA adapter is applied (auto: merged, which is faster)",
    )
    group.add_argument(
        "--dtype",
        dest="engine.dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="number type of the multimodal LLM (auto: the checkpoint's)",
    )


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """What can change a measurement, and so gives another fingerprint."""
    group = parser.add_argument_group(
        "what is scored", "Another value is another fingerprint: all is scored anew."
    )
    group.add_argument(
        "--faces",
        dest="faces.mode",
        choices=("detect", "published", "whole_image"),
        help="detect: every face (default); published: the paper's detector and first face only; "
        "whole_image: each file is a face crop already",
    )
    group.add_argument(
        "--max-faces", dest="faces.max_faces", type=int, metavar="N", help="the N largest of an image (16)"
    )
    group.add_argument(
        "--margin",
        dest="faces.margin",
        type=int,
        metavar="PX",
        help="pixels around a face that are kept (40)",
    )
    group.add_argument(
        "--formats",
        dest="decode.formats",
        type=lambda names: tuple(name.strip().upper() for name in names.split(",")),
        metavar="F,F",
        help="formats that are read, by content (JPEG,PNG,WEBP,GIF; BMP and TIFF on request)",
    )
    group.add_argument(
        "--max-tokens",
        dest="answers.max_tokens",
        type=int,
        metavar="N",
        help="cap on an answer's tokens (512)",
    )


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as options: those with a dotted name, and the bundle."""
    given = {name: value for name, value in vars(args).items() if "." in name and value is not None}
    return given | {"bundle": args.bundle}


def statuses(text: str) -> tuple[Status, ...]:
    """The statuses in `STATUS,...`, as an option's type."""
    try:
        return tuple(Status(name.strip()) for name in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; there are {', '.join(Status)}") from None
