"""Score every face in a set of images, on this machine or a Ray cluster.

INPUT is a folder, an S3 prefix, a glob ('photos/*.jpg', in quotes), one image,
a CSV or Parquet manifest with a column of addresses, or an S3 Inventory: the
manifest.json of a report, or its folder, of which the newest report is taken.
OUTPUT is a folder or S3 prefix that holds the verdict table: one row per image,
whatever fails.

The same command again goes on where it stopped, and scores what is new or
failed for a passing reason. Set RAY_ADDRESS to use a cluster.

  ffaa score photos/ verdicts/
  ffaa score s3://uploads/2026/ s3://verdicts/2026 --bundle s3://models/ffaa
  ffaa score crops.csv verdicts/ --faces whole_image --uri-column path
  ffaa table show verdicts/
"""

import argparse

from ffaa_core.commands.options import add_model_options, add_scoring_options, settings_of, statuses


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ffaa score`."""
    parser.add_argument(
        "input", metavar="INPUT", help="images: folder, s3://bucket/prefix, glob, manifest or S3 Inventory"
    )
    parser.add_argument("output", metavar="OUTPUT", help="verdict table: folder or s3://bucket/prefix")
    add_model_options(parser)
    add_scoring_options(parser)
    group = parser.add_argument_group("the run")
    group.add_argument(
        "--shard-size", dest="run.shard_size", type=int, metavar="N", help="images committed together (64)"
    )
    group.add_argument(
        "--max-images",
        dest="run.max_images",
        type=int,
        metavar="N",
        help="score at most so many images, the first by name, and say how many are left (default: all)",
    )
    group.add_argument(
        "--max-failure-rate",
        dest="run.max_failure_rate",
        type=float,
        metavar="RATE",
        help="exit 3 if more than this share of images failed (0.05)",
    )
    group.add_argument(
        "--answer-actors",
        dest="run.answer_actors",
        type=int,
        metavar="N",
        help="engines (default: one per GPU)",
    )
    group.add_argument(
        "--uri-column", dest="run.uri_column", metavar="NAME", help="a manifest's column (image_uri)"
    )
    group.add_argument(
        "--retry",
        type=statuses,
        default=(),
        metavar="STATUS,...",
        help="score images of these statuses again, such as decode_failed, however often they were tried",
    )
    group.add_argument(
        "--run",
        dest="run_name",
        metavar="NAME",
        help="a name for the run: once it is finished, none follows it",
    )
    parser.add_argument("--verbose", action="store_true", help="all log lines of Ray and vLLM")


def run(args: argparse.Namespace) -> int:
    """Score, and return the exit code."""
    from ray_jobs.score.supervisor import supervised

    if (code := supervised()) is not None:
        return code
    from ffaa_core.config import read_config
    from ffaa_core.settings import from_mapping
    from ray_jobs.score.config import ScoreConfig
    from ray_jobs.score.end_to_end import score

    config = from_mapping(ScoreConfig, read_config(args.config, settings_of(args)))
    return score(config, args.input, args.output, name=args.run_name, retry=args.retry, verbose=args.verbose)
