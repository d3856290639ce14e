"""What a night needs refuses a manifest that is broken where it looks.

Unbroken ones pass: test_overlays.py.
"""

from typing import Any

import pytest

from tests.k8s import nights
from tests.k8s.breaking import (
    CLUSTER,
    ENGINE,
    ENGINE_POD,
    HEAD,
    HEAD_POD,
    JOB,
    POD,
    SERVICE_HEAD,
    Build,
    Check,
    is_refused,
    kind,
    put,
    told_of,
)

NIGHTS: list[tuple[Check, str, str, Any, str]] = [
    (nights.schedule_problems, "CronJob", "spec.concurrencyPolicy", "Allow", "Forbid"),
    (nights.schedule_problems, "CronJob", "spec.schedule", "at night", "no schedule"),
    (nights.schedule_problems, "CronJob", "spec.timeZone", "Europe/Bonn", "no time zone"),
    (nights.schedule_problems, "CronJob", "spec.failedJobsHistoryLimit", None, "failedJobsHistoryLimit"),
    (nights.schedule_problems, "RayJob", "spec.suspend", False, "at once"),
    (
        nights.exit_code_problems,
        "CronJob",
        f"{JOB}.podFailurePolicy",
        None,
        "after exit code 3 the Job tries again",
    ),
    (
        nights.exit_code_problems,
        "CronJob",
        f"{JOB}.podFailurePolicy.rules.1.onExitCodes.values",
        [2],
        "after exit code 75 the Job has failed",
    ),
    (nights.exit_code_problems, "CronJob", f"{JOB}.podFailurePolicy.rules.0", None, "an eviction counts"),
    (nights.exit_code_problems, "CronJob", f"{POD}.restartPolicy", "OnFailure", "restartPolicy"),
    (nights.exit_code_problems, "CronJob", f"{JOB}.backoffLimit", 0, "nothing is tried again"),
    (
        nights.grace_problems,
        "RayJob",
        f"{ENGINE_POD}.terminationGracePeriodSeconds",
        None,
        "engine: not run.grace",
    ),
    (nights.grace_problems, "RayJob", f"{HEAD_POD}.containers.0.env.2.value", "3", "head: not run.grace"),
    (nights.grace_problems, "RayJob", "spec.jobId", "other", "another job"),
    (nights.grace_problems, "RayJob", "spec.entrypoint", "ffaa score a b", "no exec"),
    (nights.size_problems, "RayJob", f"{HEAD}.rayStartParams.num-cpus", None, "the head takes work"),
    (nights.size_problems, "RayService", f"{SERVICE_HEAD}.rayStartParams.num-cpus", "2", "the head takes"),
    (nights.size_problems, "RayJob", f"{ENGINE}.minReplicas", 1, "engine: does not start from zero"),
    (nights.size_problems, "RayJob", f"{ENGINE}.groupName", "answer", "no worker group engine"),
    (
        nights.size_problems,
        "RayJob",
        f"{HEAD_POD}.initContainers.0.resources.limits.memory",
        None,
        "no limits",
    ),
]


@pytest.mark.parametrize(("check", "which", "path", "value", "told"), NIGHTS)
def test_a_check_of_nights_refuses(
    build: Build, check: Check, which: str, path: str, value: Any, told: str
) -> None:
    assert is_refused(build("gpu"), check, which, path, value, told)


@pytest.mark.parametrize(
    ("which", "path", "value", "told"),
    [
        ("CronJob", f"{POD}.containers.0.args.7", None, "do not ask for it"),
        ("LocalQueue", "metadata.name", "other", "no LocalQueue"),
        ("LocalQueue", "spec.clusterQueue", "other", "no ClusterQueue other"),
        ("ResourceFlavor", "metadata.name", "other", "no ResourceFlavor"),
        ("RayJob", f"{CLUSTER}.enableInTreeAutoscaling", True, "autoscaler"),
        ("ConfigMap/ffaa-nightly", "data.ENGINE_WORKERS", "5", "a night needs 5 of nvidia.com/gpu"),
    ],
)
def test_a_queue_that_would_never_admit_a_night_is_refused(
    build: Build, which: str, path: str, value: Any, told: str
) -> None:
    rendered = build("kueue")
    put(kind(rendered, which), path, value)
    assert told_of(nights.queue_problems, rendered, told)
