"""Run tonight's scan on Kubernetes: create its RayJob, follow it, exit as it does.

For the CronJob of an overlay in k8s/, which starts it as a Job. TEMPLATE is a
suspended RayJob in the pod's namespace. Tonight's is named by the scheduled time,
which is also the name of the run. The same command again follows the RayJob there
is; if that one ended with 75, it makes the next.

  ffaa nightly ffaa-nightly --job $(JOB_NAME) --job-uid $(JOB_UID) --workers engine=8
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ffaa nightly`."""
    parser.add_argument("template", metavar="TEMPLATE", help="name of the suspended RayJob that is copied")
    parser.add_argument(
        "--job", metavar="NAME", required=True, help="the Job's name: CRONJOB-MINUTES, or any other"
    )
    parser.add_argument("--job-uid", metavar="UID", help="its uid: the RayJob is deleted together with it")
    parser.add_argument(
        "--workers",
        type=_workers,
        action="append",
        default=[],
        metavar="GROUP=N",
        help="the most pods of a worker group; may be given for each of them",
    )
    parser.add_argument(
        "--label",
        type=_pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a label of the RayJob, such as kueue.x-k8s.io/queue-name=ffaa",
    )


def run(args: argparse.Namespace) -> int:
    """Scan, and return the exit code."""
    from ray_jobs.nightly.kubernetes import Kubernetes
    from ray_jobs.nightly.night import Night, names, scan
    from ray_jobs.score.signals import stop_requests

    name, run_name = names(args.job)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": args.job, "uid": args.job_uid}
    night = Night(
        name=name,
        run=run_name,
        workers=dict(args.workers),
        labels=dict(args.label),
        owner=owner if args.job_uid else None,
    )
    with stop_requests(patient=False):
        return scan(Kubernetes.in_cluster(), args.template, night)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    return key, value


def _workers(text: str) -> tuple[str, int]:
    group, number = _pair(text)
    if not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: {number!r} is not a number of pods")
    return group, int(number)
