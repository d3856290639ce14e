"""Making tonight's RayJob from its template, and knowing how it ended.

KubeRay's own `backoffLimit` tries every failure again, so it is 0, and a further attempt is a further RayJob:
whoever starts the command again (a Job of Kubernetes, on exit code 75) gets the next one. Attempts are told
apart by their names, so nothing has to be remembered, and a command that was evicted finds its RayJob again.
"""

import copy
import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Protocol

from ffaa_core.errors import ConfigurationError, JobError

Manifest = dict[str, Any]

MAX_NAME = 47
"""KubeRay's limit for the name of a RayJob; it appends to it."""
POLL_S = 15.0

_SCHEDULED = re.compile(r"(?P<cronjob>.+)-(?P<minutes>(?!20)\d{8})")
_ENTRYPOINT_FAILED = re.compile(r"Job entrypoint command failed with exit code (-?\d+)")


class RayJobs(Protocol):
    """The RayJobs of a namespace."""

    def get(self, name: str) -> Manifest | None: ...

    def create(self, rayjob: Manifest) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Night:
    """What tonight's RayJob has that its template has not.

    `name` is its name, `run` that of the run of `ffaa score`. `workers` are the most pods of worker groups by
    the group's name. It is deleted together with its `owner` (an entry of `ownerReferences`).
    """

    name: str
    run: str
    workers: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    owner: Mapping[str, Any] | None = None

    def attempt_name(self, attempt: int) -> str:
        """The RayJob's name at its first, second, ... attempt.

        Raises:
            ConfigurationError: it is longer than KubeRay allows.
        """
        name = self.name if attempt == 1 else f"{self.name}-{attempt}"
        if len(name) > MAX_NAME:
            raise ConfigurationError(
                f"{name!r} has {len(name)} characters, a RayJob's name at most {MAX_NAME}: "
                "give the job a shorter name"
            )
        return name


def names(job: str) -> tuple[str, str]:
    """Name of the RayJob and of the run, from the name of the Job that a CronJob made.

    Kubernetes ends it with the scheduled time in minutes, which is told in UTC. Any other name, such as that
    of a Job made by hand, is taken for both as it is. (Eight digits that begin with 20 are somebody's date.)

    >>> names("ffaa-nightly-29395590")
    ('ffaa-nightly-20251121-1430', '2025-11-21T14:30Z')
    """
    scheduled = _SCHEDULED.fullmatch(job)
    if not scheduled:
        return job, job
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=int(scheduled["minutes"]))
    return f"{scheduled['cronjob']}-{when:%Y%m%d-%H%M}", f"{when:%Y-%m-%dT%H:%MZ}"


def rayjob(template: Manifest, night: Night, attempt: int) -> Manifest:
    """The RayJob of an attempt: the template, no longer suspended, with the name of the run.

    Without autoscaling, a group has its most workers from the start.

    Raises:
        ConfigurationError: the template has no worker group of a name in `night.workers`.
    """
    spec = copy.deepcopy(template["spec"])
    spec["suspend"] = False
    spec["entrypoint"] += f" --run {shlex.quote(night.run)}"
    cluster = spec["rayClusterSpec"]
    groups = {group["groupName"]: group for group in cluster.get("workerGroupSpecs", [])}
    if unknown := night.workers.keys() - groups.keys():
        raise ConfigurationError(
            f"the template has no worker group {', '.join(sorted(unknown))}; it has {', '.join(groups)}"
        )
    for name, workers in night.workers.items():
        groups[name]["maxReplicas"] = workers
        if not cluster.get("enableInTreeAutoscaling"):
            groups[name]["replicas"] = workers
    metadata: dict[str, Any] = {
        "name": night.attempt_name(attempt),
        "labels": {**template["metadata"].get("labels", {}), **night.labels},
    }
    if night.owner:
        metadata["ownerReferences"] = [dict(night.owner)]
    return {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": metadata,
        "spec": spec,
    }


def exit_code(status: Mapping[str, Any]) -> int | None:
    """What `ffaa score` exited with, by the status of its RayJob; None while that has not ended.

    Of the exit code KubeRay keeps the sentence of Ray that states it. Where there is none, something below
    the command failed, which is to be tried again (75). Two ends are a matter for a person (2): the deadline
    has passed, or KubeRay refuses the RayJob.
    """
    deployment = status.get("jobDeploymentStatus")
    if deployment == "Complete":  # also of a job that was stopped, as it is when its head node is drained
        return 0 if status.get("jobStatus") == "SUCCEEDED" else JobError.exit_code
    if deployment == "ValidationFailed" or status.get("reason") in ("DeadlineExceeded", "ValidationFailed"):
        return ConfigurationError.exit_code
    if deployment != "Failed":
        return None
    stated = _ENTRYPOINT_FAILED.match(status.get("message", ""))
    code = int(stated[1]) if stated else JobError.exit_code
    return code if code > 0 else JobError.exit_code  # below 0: a signal from outside


def scan(rayjobs: RayJobs, template_name: str, night: Night, poll_s: float = POLL_S) -> int:
    """Follow tonight's RayJob, which is made unless there is one, and return the exit code of `ffaa score`.

    Where the last one ended with 75, the next attempt is made.

    Raises:
        ConfigurationError: there is no such template, it does not fit `night`, or has its name.
        JobError: the RayJob was deleted meanwhile.
    """
    if night.name == template_name:
        raise ConfigurationError(f"{template_name} is the template's name: give the job another one")
    for attempt in count(1):
        name = night.attempt_name(attempt)
        found = rayjobs.get(name)
        if found is None:
            break
        if exit_code(found.get("status", {})) != JobError.exit_code:
            print(f"RayJob {name} exists and is followed")
            return _follow(rayjobs, name, poll_s)
    template = rayjobs.get(template_name)
    if template is None:
        raise ConfigurationError(
            f"there is no RayJob {template_name} to take as a template: apply an overlay"
        )
    rayjobs.create(rayjob(template, night, attempt))
    print(f"RayJob {name} created, run {night.run}", flush=True)
    return _follow(rayjobs, name, poll_s)


def _follow(rayjobs: RayJobs, name: str, poll_s: float) -> int:
    told = None
    while True:
        found = rayjobs.get(name)
        if found is None:
            raise JobError(f"RayJob {name} was deleted while it ran; what is committed stays")
        status = found.get("status", {})
        state = " ".join(filter(None, (status.get("jobDeploymentStatus"), status.get("jobStatus"))))
        if state != told:
            print(f"RayJob {name}: {state or 'new'}", flush=True)
            told = state
        code = exit_code(status)
        if code is not None:
            if code:
                print(": ".join(filter(None, (status.get("reason"), status.get("message")))), flush=True)
            return code
        time.sleep(poll_s)
