"""What must be there is missed where it is taken away.

Unbroken ones pass: test_overlays.py.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.machines import Network
from tests.k8s import presence
from tests.k8s.breaking import (
    CLUSTER,
    ENGINE_POD,
    ENGINES_POD,
    GATEWAYS_POD,
    HEAD_POD,
    JOB,
    SERVICE_HEAD_POD,
    Build,
    Check,
    is_refused,
    kind,
    put,
    told_of,
)
from tests.k8s.kuberay import Site

CROP_POD = f"{CLUSTER}.workerGroupSpecs.0.template.spec"
HTTPS, REDIS, NAMES = (f"NetworkPolicy/{name}" for name in ("https", "to-redis", "name-service"))
PRESENCE: list[tuple[Check, str, str, Any, str]] = [
    (presence.deadline_problems, "RayJob", "spec.activeDeadlineSeconds", None, "no activeDeadlineSeconds"),
    (presence.deadline_problems, "RayJob", "spec.preRunningDeadlineSeconds", None, "no preRunningDeadlineS"),
    (
        presence.deadline_problems,
        "RayJob",
        "spec.ttlSecondsAfterFinished",
        None,
        "no ttlSecondsAfterFinished",
    ),
    (presence.deadline_problems, "CronJob", f"{JOB}.activeDeadlineSeconds", None, "every later night"),
    (presence.deadline_problems, "CronJob", f"{JOB}.activeDeadlineSeconds", 82800, "before its RayJob must"),
    (presence.bundle_problems, "RayJob", f"{HEAD_POD}.initContainers", None, "^head fetches no bundle"),
    (presence.bundle_problems, "RayJob", f"{ENGINE_POD}.initContainers.0.name", "x", "^engine fetches no"),
    (
        presence.bundle_problems,
        "RayService",
        f"{ENGINES_POD}.initContainers",
        [],
        "service-engine fetches no",
    ),
    (
        presence.bundle_problems,
        "RayJob",
        f"{ENGINE_POD}.initContainers.0.args.4",
        None,
        "^engine does not hold",
    ),
    (
        presence.bundle_problems,
        "RayService",
        f"{ENGINES_POD}.initContainers.0.args.4",
        "--sha256=",
        "service-engine does not hold",
    ),
    (
        presence.storage_problems,
        "RayJob",
        f"{HEAD_POD}.containers.0.envFrom.1",
        None,
        "^head/ray-head: no keys",
    ),
    (presence.storage_problems, "RayJob", f"{CROP_POD}.containers.0.envFrom.1", None, "^crop/ray-worker: no"),
    (
        presence.storage_problems,
        "RayJob",
        f"{ENGINE_POD}.initContainers.0.envFrom.1.secretRef.optional",
        None,
        "^engine/bundle: no keys",
    ),
    (
        presence.storage_problems,
        "RayService",
        f"{SERVICE_HEAD_POD}.containers.0.envFrom",
        None,
        "service-head/ray-head: no keys",
    ),
    (
        presence.storage_problems,
        "RayService",
        f"{GATEWAYS_POD}.containers.0.envFrom.0.secretRef.name",
        "keys",
        "service-gateway/ray-worker: no keys",
    ),
    (presence.priority_problems, "RayJob", f"{CROP_POD}.priorityClassName", None, "^crop has no priority"),
    (
        presence.priority_problems,
        "RayService",
        f"{GATEWAYS_POD}.priorityClassName",
        None,
        "gateway has no pri",
    ),
    (presence.priority_problems, "PriorityClass/ffaa-nightly-worker", "value", -11, "starts no node for it"),
    (presence.priority_problems, "PriorityClass/ffaa-nightly-worker", "value", 0, "do not make way"),
    (
        presence.spread_problems,
        "RayJob",
        f"{CROP_POD}.topologySpreadConstraints",
        None,
        "^crop is not spread",
    ),
    (
        presence.spread_problems,
        "RayService",
        f"{GATEWAYS_POD}.topologySpreadConstraints.1",
        None,
        "service-gateway is not spread over kubernetes.io/hostname",
    ),
    (
        presence.spread_problems,
        "RayService",
        f"{GATEWAYS_POD}.topologySpreadConstraints.0",
        None,
        "service-gateway is not spread over topology",
    ),
    (presence.spread_problems, "RayJob", f"{ENGINE_POD}.affinity", None, "two pods of engine"),
    (presence.spread_problems, "RayService", f"{ENGINES_POD}.affinity", {}, "two pods of service-engine"),
    (
        presence.spread_problems,
        "RayService",
        f"{ENGINES_POD}.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution.0.labelSelector",
        {"matchLabels": {"ffaa/component": "engine"}},
        "two pods of service-engine",
    ),
    (
        presence.budget_problems,
        "PodDisruptionBudget/ffaa-nightly-head",
        "spec.selector.matchLabels",
        {"ffaa/component": "crop"},
        "the scan's head may be evicted",
    ),
    (
        presence.budget_problems,
        "PodDisruptionBudget/ffaa-gateways",
        "spec.minAvailable",
        0,
        "all gateways may",
    ),
    (presence.egress_problems, HTTPS, "spec.egress.0.ports", None, "https lets out at every port"),
    (
        presence.egress_problems,
        HTTPS,
        "spec.egress.0.ports.0.port",
        80,
        "https lets out to any address at 80",
    ),
    (
        presence.egress_problems,
        HTTPS,
        "spec.egress.0.to.0.ipBlock.except",
        None,
        "metadata at 169.254.169.254",
    ),
    (presence.egress_problems, HTTPS, "spec.egress.0.to.1.ipBlock.except", [], "metadata at fd00:ec2::254"),
    (presence.egress_problems, NAMES, "spec.egress.0.ports", [], "name-service lets out at every port"),
    (presence.egress_problems, NAMES, "spec.egress.0.to", [], "name-service lets out to any address at 53"),
    (
        presence.egress_problems,
        "NetworkPolicy/kubernetes-api",
        "spec.egress.0.ports.0.port",
        6379,
        "kubernetes-api lets out to any address at 6379",
    ),
    (
        presence.egress_problems,
        "NetworkPolicy/ray-cluster",
        "spec.egress.0.to",
        [{"podSelector": {}}],
        "ray-cluster lets out at every port",
    ),
    (presence.egress_problems, REDIS, "spec.egress.0.ports.0.port", 6380, "not let through to port 6379"),
    (presence.egress_problems, REDIS, "metadata.name", "redis", "not let through to port 6379"),
    (
        presence.egress_problems,
        "ConfigMap/ffaa-service",
        "data.REDIS_ADDRESS",
        "redis.example:6380",
        "not let through to port 6380",
    ),
]


@pytest.mark.parametrize(("check", "which", "path", "value", "told"), PRESENCE)
def test_what_is_taken_away_is_missed(
    build: Build, check: Check, which: str, path: str, value: Any, told: str
) -> None:
    assert is_refused(build("gpu"), check, which, path, value, told)


def test_every_container_that_reaches_storage_has_what_the_secret_has(build: Build, tmp_path: Path) -> None:
    rendered = build("cpu-dev")
    site = Site(rendered, Network(""), tmp_path, {"AWS_ACCESS_KEY_ID": "an id"}).applied
    for pod in (*rendered.ray_pods(), *rendered.service_pods()):
        for container in pod.containers:
            assert "AWS_ACCESS_KEY_ID" not in rendered.environment(container)
            assert site.environment(container)["AWS_ACCESS_KEY_ID"] == "an id"


def test_a_budget_for_an_only_gateway_is_refused(build: Build) -> None:
    rendered = build("cpu-dev")
    put(kind(rendered, "PodDisruptionBudget"), "spec.selector.matchLabels", {"ffaa/component": "gateway"})
    assert told_of(presence.budget_problems, rendered, "can never be drained")
