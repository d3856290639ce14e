"""What manifests must agree on refuses one that is broken where it looks.

Unbroken ones pass: test_overlays.py.
"""

from typing import Any

import pytest

from tests.k8s import consistency
from tests.k8s.breaking import (
    CLUSTER,
    ENGINE,
    ENGINE_POD,
    ENGINES,
    ENGINES_POD,
    GATEWAYS_POD,
    HEAD,
    HEAD_POD,
    POD,
    SERVICE,
    SERVICE_HEAD_POD,
    Build,
    Check,
    is_refused,
)

CONSISTENCY: list[tuple[Check, str, str, Any, str]] = [
    (consistency.command_problems, "CronJob", f"{POD}.containers.0.args.7", "--retries=3", "--retries"),
    (
        consistency.command_problems,
        "CronJob",
        f"{POD}.containers.0.args.0",
        "kubectl",
        "neither ffaa nor ray",
    ),
    (
        consistency.command_problems,
        "RayJob",
        f"{ENGINE_POD}.initContainers.0.command",
        ["ffaa"],
        "engine/bundle: its command takes the place of the image's tini",
    ),
    (consistency.command_problems, "RayJob", f"{HEAD_POD}.initContainers.0.args.2", "get", "invalid choice"),
    (consistency.command_problems, "RayJob", "spec.entrypoint", "ffaa score a b --resume", "--resume"),
    (
        consistency.command_problems,
        "RayJob",
        f"{HEAD_POD}.containers.0.lifecycle.preStop.exec.command.2",
        "end",
        "no command end",
    ),
    (
        consistency.command_problems,
        "RayJob",
        f"{ENGINE_POD}.containers.0.lifecycle.preStop.exec.command.4",
        "ray health-check --adress x",
        "--adress",
    ),
    (consistency.command_problems, "RayJob", f"{HEAD}.rayStartParams.num-cpu", "0", "--num-cpu"),
    (consistency.variable_problems, "CronJob", f"{POD}.containers.0.env.0.name", "JOB", "JOB_NAME is used"),
    (
        consistency.variable_problems,
        "CronJob",
        f"{POD}.containers.0.env.2",
        {"name": "X", "value": "1"},
        "knows X",
    ),
    (consistency.variable_problems, "ConfigMap/ffaa-nightly", "data.FFAA_IMPUT", "x", "knows FFAA_IMPUT"),
    (
        consistency.variable_problems,
        "RayJob",
        f"{HEAD_POD}.containers.0.env.2.name",
        "RAY_JOB_STOP_WAIT_S",
        "knows RAY_JOB_STOP_WAIT_S",
    ),
    (consistency.variable_problems, "RayJob", f"{HEAD_POD}.containers.0.envFrom", [], "FFAA_INPUT is used"),
    (consistency.setting_problems, "ConfigMap/ffaa-nightly", "data.FFAA_INPUT", "", "FFAA_INPUT is empty"),
    (consistency.setting_problems, "ConfigMap/ffaa-nightly", "data.FFAA_BUNDLE_SHA256", "abc", "no sha256"),
    (
        consistency.setting_problems,
        "ConfigMap/ffaa-nightly",
        "data.ENGINE_WORKERS",
        "5",
        "ENGINE_WORKERS have 5",
    ),
    (
        consistency.setting_problems,
        "ConfigMap/ffaa-score",
        "data",
        {"score.yaml": "run: {gpu: 4}"},
        "score.yaml: .*gpu",
    ),
    (consistency.setting_problems, "ConfigMap/ffaa-score", "data", {"job.yaml": ""}, "the head has no"),
    (consistency.version_problems, "RayJob", f"{CLUSTER}.rayVersion", "2.59.0", "rayVersion"),
    (consistency.version_problems, "RayService", f"{SERVICE}.rayVersion", "2.59.0", "rayVersion"),
    (
        consistency.command_problems,
        "RayService",
        f"{GATEWAYS_POD}.containers.0.lifecycle.preStop.exec.command.4",
        "ray drain-node --node x\n",
        "--node",
    ),
    (
        consistency.command_problems,
        "RayService",
        f"{ENGINES_POD}.initContainers.0.args.4",
        "--md5=x",
        "--md5",
    ),
    (consistency.command_problems, "RayService", f"{ENGINES}.rayStartParams.num-cpu", "1", "--num-cpu"),
    (
        consistency.variable_problems,
        "RayService",
        f"{ENGINES_POD}.initContainers.0.env.3.name",
        "FFAA_BUNDLE_SHA",
        "FFAA_BUNDLE_SHA256 is used",
    ),
    (
        consistency.variable_problems,
        "RayService",
        f"{SERVICE_HEAD_POD}.containers.0.env.2.name",
        "RAY_SERVE_PROXY",
        "knows RAY_SERVE_PROXY",
    ),
    (consistency.version_problems, "RayJob", f"{HEAD}.rayStartParams.system-config", "'{}'", "system-config"),
    (
        consistency.version_problems,
        "RayJob",
        f"{ENGINE_POD}.containers.0.image",
        "ffaa:0.2.0-gpu",
        "one image",
    ),
    (
        consistency.reference_problems,
        "ServiceAccount/ffaa-head",
        "metadata.name",
        "head",
        "ServiceAccount ffaa-head",
    ),
    (consistency.reference_problems, "PriorityClass", "metadata.name", "x", "no PriorityClass"),
    (
        consistency.reference_problems,
        "ConfigMap/ffaa-service",
        "metadata.name",
        "x",
        "service-engine: there is no ConfigMap ffaa-service",
    ),
    (
        consistency.reference_problems,
        "RayService",
        f"{SERVICE}.gcsFaultToleranceOptions.redisPassword.valueFrom.secretKeyRef.name",
        "x",
        "redisPassword: there is no Secret x",
    ),
    (
        consistency.reference_problems,
        "RayService",
        f"{GATEWAYS_POD}.topologySpreadConstraints.1.labelSelector.matchLabels",
        {"ffaa/component": "door"},
        "service-gateway: topology: no pod",
    ),
    (consistency.reference_problems, "ConfigMap/ffaa-score", "metadata.name", "x", "no ConfigMap ffaa-score"),
    (
        consistency.reference_problems,
        "RayJob",
        f"{ENGINE_POD}.containers.0.envFrom.1.secretRef.name",
        "x",
        "engine: there is no Secret x",
    ),
    (consistency.reference_problems, "RoleBinding", "roleRef.name", "x", "no Role x"),
    (consistency.reference_problems, "CronJob", f"{POD}.containers.0.args.2", "x", "no RayJob x"),
    (
        consistency.reference_problems,
        "PodDisruptionBudget",
        "spec.selector.matchLabels",
        {"ffaa/component": "driver"},
        "no pod is selected",
    ),
    (
        consistency.reference_problems,
        "RayJob",
        f"{ENGINE}.template.metadata.labels",
        {"ffaa/part": "scan"},
        "engine: affinity: no pod",
    ),
]


@pytest.mark.parametrize(("check", "which", "path", "value", "told"), CONSISTENCY)
def test_a_check_of_consistency_refuses(
    build: Build, check: Check, which: str, path: str, value: Any, told: str
) -> None:
    assert is_refused(build("gpu"), check, which, path, value, told)
