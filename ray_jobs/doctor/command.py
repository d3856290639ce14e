"""Look before a big run whether it would go well, and what it would cost.

Takes the arguments of `ffaa score` and looks at what a run would need: INPUT
and OUTPUT, the bundle and its adapter, the cluster and its machines. Then it
scores one shard with the real models, to say how fast that is; --quick leaves
that out. Nothing is left in OUTPUT.

Each line is ok, a warning or an error, with what to do. The exit code is 0 if
there is no error, else 2.

  ffaa doctor s3://uploads/2026/ s3://verdicts/2026 --price-per-hour 32.8
  ffaa doctor photos/ verdicts/ --quick
"""

import argparse
import math
import os
import signal
import sys
from contextlib import closing
from types import FrameType
from typing import Any

from ray_jobs.score.command import add_arguments as add_score_arguments

FORMATS = ("text", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ffaa doctor`: those of `ffaa score`, and its own."""
    add_score_arguments(parser)
    group = parser.add_argument_group("the doctor")
    group.add_argument("--quick", action="store_true", help="score no shard, load no model")
    group.add_argument(
        "--price-per-hour",
        type=_price,
        metavar="DOLLARS",
        help="of all machines together: adds the price of a million images",
    )
    group.add_argument(
        "--format", choices=FORMATS, default="text", help="json: one object a line, for programs"
    )


def run(args: argparse.Namespace) -> int:
    """Examine, and return the exit code."""
    from ffaa_core.commands.options import settings_of
    from ffaa_core.config import read_config
    from ffaa_core.settings import from_mapping
    from ray_jobs.doctor.diagnosis import Diagnosis
    from ray_jobs.doctor.report import report
    from ray_jobs.score.config import ScoreConfig

    diagnosis = Diagnosis(
        config=from_mapping(ScoreConfig, read_config(args.config, settings_of(args))),
        input_uri=args.input,
        output_uri=args.output,
        quick=args.quick,
        price_per_hour=args.price_per_hour,
        verbose=args.verbose,
    )
    signal.signal(signal.SIGTERM, _stop)
    # What Ray prints to standard output is kept away; the findings are not.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as file, closing(diagnosis.findings()) as findings:
        return report(findings, file, args.format)


def _stop(number: int, frame: FrameType | None) -> Any:
    """Leave by an exception, so that what was written to OUTPUT is deleted on the way."""
    raise SystemExit(75)


def _price(text: str) -> float:
    price = float(text)
    if not (math.isfinite(price) and price > 0):
        raise argparse.ArgumentTypeError(f"{text} is no price above 0")
    return price
