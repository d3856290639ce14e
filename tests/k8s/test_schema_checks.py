"""Schemas and the operator's rules refuse a manifest that is broken where they look.

Unbroken ones pass: test_overlays.py.
"""

from typing import Any

import pytest

from tests.k8s.breaking import (
    CLUSTER,
    ENGINE,
    ENGINE_POD,
    ENGINES,
    ENGINES_POD,
    GATEWAYS,
    HEAD,
    HEAD_POD,
    INCREMENTAL,
    POD,
    SERVICE,
    SERVICE_HEAD,
    SERVICE_HEAD_POD,
    Build,
    kind,
    put,
)
from tests.k8s.operator_rules import operator_problems, service_problems
from tests.k8s.schemas import Definitions, core_problems, runtime_environment_problems


@pytest.mark.parametrize(
    ("which", "path", "value", "told"),
    [
        ("CronJob", "spec.startingDeadlineSeconds", "soon", "soon"),
        ("CronJob", "spec.timezone", "Etc/UTC", "timezone"),
        ("CronJob", f"{POD}.containers.0.resources.limits.memory", ["1Gi"], "limits"),
        ("NetworkPolicy", "spec.podSelector", None, "podSelector"),
        ("PodDisruptionBudget", "spec.minAvailable", [], "minAvailable"),
        ("PriorityClass", "value", "high", "high"),
    ],
)
def test_kubernetes_schema_refuses(build: Build, which: str, path: str, value: Any, told: str) -> None:
    manifest = kind(build("gpu"), which)
    put(manifest, path, value)
    assert any(told in problem for problem in core_problems(manifest))


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("spec.shutDownAfterJobFinishes", True, "shutDownAfterJobFinishes"),
        ("spec.backoffLimit", "3", "backoffLimit"),
        (f"{CLUSTER}.autoscalerOptions.version", "v3", "v3"),
        (f"{CLUSTER}.authOptions.mode", "password", "password"),
        (f"{ENGINE}.template.spec.containers.0.resources.limits.cpu", {}, "cpu"),
        (f"{ENGINE}.rayStartParams", {"num-cpus": 8}, "num-cpus"),
        (f"{HEAD}.template", None, "template"),
        (f"{HEAD_POD}.containers.0.imagePullPolicies", "Always", "imagePullPolicies"),
        ("spec.managedBy", "somebody", "managedBy field value must be"),
        ("spec.deletionStrategy", {"onSuccess": {"policy": "DeleteSelf"}}, "requires either BOTH"),
    ],
)
def test_kuberays_definition_refuses(
    build: Build, definitions: Definitions, path: str, value: Any, told: str
) -> None:
    rayjob = build("gpu").template
    put(rayjob, path, value)
    assert any(told in problem for problem in definitions.problems(rayjob))


def test_a_kind_without_a_definition_is_refused(definitions: Definitions) -> None:
    assert definitions.problems({"apiVersion": "ray.io/v2", "kind": "RayJob"})


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("metadata.name", "n" * 48, "at most 47"),
        ("metadata.name", "1st", "DNS label"),
        ("spec.shutdownAfterJobFinishes", False, "shutdownAfterJobFinishes"),
        ("spec.ttlSecondsAfterFinished", -1, "ttlSecondsAfterFinished"),
        ("spec.activeDeadlineSeconds", 0, "activeDeadlineSeconds"),
        ("spec.backoffLimit", 3, "every exit code"),
        ("spec.clusterSelector", {"ray.io/cluster": "a"}, "clusterSelector"),
        ("spec.rayClusterSpec", None, "rayClusterSpec is missing"),
        (f"{CLUSTER}.rayVersion", "2.51.0", "tokens"),
        (f"{CLUSTER}.authOptions", None, "tokens"),
        (f"{CLUSTER}.autoscalerOptions.version", "v1", "not v2"),
        (f"{CLUSTER}.enableInTreeAutoscaling", False, "needs the autoscaler"),
        (f"{ENGINE}.replicas", 100, "engine: replicas"),
        (f"{ENGINE_POD}.restartPolicy", "Always", "engine: restartPolicy"),
        (f"{ENGINE_POD}.containers", [], "engine has no container"),
        (f"{ENGINE}.rayStartParams", {"labels": "a=b"}, "labels"),
        (f"{HEAD}.resources", {"CPU": "1"}, "resources in rayStartParams"),
    ],
)
def test_the_operators_rules_refuse(build: Build, path: str, value: Any, told: str) -> None:
    rayjob = build("gpu").template
    put(rayjob, path, value)
    assert any(told in problem for problem in operator_problems(rayjob))


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("spec.serveConfig", "", "serveConfig"),
        ("spec.rayClusterDeletionDelaySeconds", -1, "minimum"),
        (f"{INCREMENTAL}.gatewayClassName", None, "gatewayClassName"),
        (f"{INCREMENTAL}.stepSizePercent", "20%", "stepSizePercent"),
        (f"{SERVICE}.gcsFaultToleranceOptions.backend", "file", "file"),
        (f"{SERVICE}.gcsFaultToleranceOptions.redisPassword", "x", "redisPassword"),
        (f"{GATEWAYS}.template", None, "template"),
        ("spec.managedBy", "somebody", "managedBy field value must be"),
    ],
)
def test_kuberays_definition_refuses_a_service(
    build: Build, definitions: Definitions, path: str, value: Any, told: str
) -> None:
    service = build("gpu-gateway").service
    put(service, path, value)
    assert any(told in problem for problem in definitions.problems(service))


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("metadata.name", "n" * 48, "at most 47"),
        ("spec.rayClusterDeletionDelaySeconds", -1, "negative"),
        ("spec.upgradeStrategy.type", "Recreate", "is none of"),
        ("spec.upgradeStrategy.type", "None", "engines of two kinds"),
        (f"{SERVICE}.enableInTreeAutoscaling", False, "needs the autoscaler"),
        (f"{INCREMENTAL}.gatewayClassName", "", "gatewayClassName"),
        (f"{INCREMENTAL}.maxSurgePercent", 101, "maxSurgePercent"),
        (f"{INCREMENTAL}.stepSizePercent", 0, "stepSizePercent"),
        (f"{INCREMENTAL}.intervalSeconds", 0, "intervalSeconds"),
        (f"{SERVICE}.gcsFaultToleranceOptions", None, "without Redis"),
        (f"{SERVICE}.gcsFaultToleranceOptions.redisAddress", "", "without Redis"),
        (f"{SERVICE}.gcsFaultToleranceOptions.externalStorageNamespace", "a", "the same for the old"),
        (f"{SERVICE_HEAD_POD}.containers.0.env.0.name", "REDIS_PASSWORD", "REDIS_PASSWORD"),
        (f"{SERVICE_HEAD}.rayStartParams.redis-password", "x", "rayStartParams"),
        (f"{SERVICE_HEAD}.headService", {"metadata": {"name": "a"}}, "a name of its own"),
        (f"{SERVICE_HEAD_POD}.containers.0.ports.3.name", "http", "no port dashboard or serve"),
        (f"{SERVICE}.authOptions", None, "tokens"),
        (f"{SERVICE}.autoscalerOptions.version", "v1", "not v2"),
        (f"{ENGINES}.replicas", 100, "engine: replicas"),
        (f"{ENGINES_POD}.restartPolicy", "Always", "engine: restartPolicy"),
    ],
)
def test_the_operators_rules_refuse_a_service(build: Build, path: str, value: Any, told: str) -> None:
    service = build("gpu-gateway").service
    put(service, path, value)
    assert any(told in problem for problem in service_problems(service))


@pytest.mark.parametrize(
    ("text", "told"),
    [("env_vars: {A: 1}", "must be of type"), ("env_varz: {A: b}", "unknown env_varz"), ("pip: 7", "pip")],
)
def test_ray_refuses_the_runtime_environment(build: Build, text: str, told: str) -> None:
    rayjob = build("gpu").template
    put(rayjob, "spec.runtimeEnvYAML", text)
    assert any(told in problem for problem in runtime_environment_problems(rayjob))
