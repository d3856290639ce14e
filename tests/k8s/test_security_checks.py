"""What is said of security refuses a manifest that is broken where it looks.

Unbroken ones pass: test_overlays.py.
"""

from typing import Any

import pytest

from tests.k8s import consistency, security
from tests.k8s.breaking import (
    CLUSTER,
    ENGINE_POD,
    GATEWAYS_POD,
    HEAD,
    HEAD_POD,
    POD,
    SERVICE,
    SERVICE_HEAD,
    SERVICE_HEAD_POD,
    Build,
    Check,
    is_refused,
    kind,
    put,
    told_of,
)

SECURITY: list[tuple[Check, str, str, Any, str]] = [
    (security.pod_security_problems, "Namespace", "metadata.labels", {}, "namespace"),
    (security.pod_security_problems, "RayJob", f"{ENGINE_POD}.hostNetwork", True, "engine: hostNetwork"),
    (
        security.pod_security_problems,
        "RayJob",
        f"{ENGINE_POD}.volumes.2",
        {"name": "disk", "hostPath": {}},
        "disk",
    ),
    (security.pod_security_problems, "CronJob", f"{POD}.securityContext.runAsUser", 0, "nightly: runAsUser"),
    (
        security.pod_security_problems,
        "RayJob",
        f"{HEAD_POD}.automountServiceAccountToken",
        None,
        "head: of all",
    ),
    (security.pod_security_problems, "CronJob", f"{POD}.securityContext.runAsNonRoot", None, "runAsNonRoot"),
    (
        security.pod_security_problems,
        "CronJob",
        f"{POD}.securityContext.seccompProfile",
        None,
        "seccompProfile",
    ),
    (security.pod_security_problems, "CronJob", f"{POD}.containers.0.securityContext", {}, "readOnlyRoot"),
    (
        security.pod_security_problems,
        "RayJob",
        f"{ENGINE_POD}.initContainers.0.securityContext.allowPrivilegeEscalation",
        True,
        "engine/bundle: allowPrivilegeEscalation",
    ),
    (
        security.pod_security_problems,
        "RayJob",
        f"{CLUSTER}.autoscalerOptions.securityContext.capabilities",
        {"drop": ["ALL"], "add": ["NET_ADMIN"]},
        "scan autoscaler: capabilities",
    ),
    (
        security.pod_security_problems,
        "RayService",
        f"{SERVICE}.autoscalerOptions.securityContext",
        {},
        "service autoscaler: ",
    ),
    (
        security.pod_security_problems,
        "RayService",
        f"{GATEWAYS_POD}.containers.0.securityContext.readOnlyRootFilesystem",
        False,
        "service-gateway/ray-worker: readOnly",
    ),
    (
        security.pod_security_problems,
        "RayService",
        f"{SERVICE_HEAD_POD}.automountServiceAccountToken",
        True,
        "service-head: of all",
    ),
    (
        security.secret_problems,
        "RayService",
        f"{SERVICE}.gcsFaultToleranceOptions.redisPassword",
        {"value": "x"},
        "no reference to a Secret",
    ),
    (
        security.secret_problems,
        "RayService",
        f"{GATEWAYS_POD}.containers.0.env.4",
        {"name": "FFAA_API_KEYS", "value": "x"},
        "FFAA_API_KEYS is spelt out",
    ),
    (
        security.exposure_problems,
        "RayService",
        f"{SERVICE_HEAD}.serviceType",
        "NodePort",
        "service: the head",
    ),
    (
        security.exposure_problems,
        "NetworkPolicy/serve",
        "spec.ingress.0.from.0",
        {"namespaceSelector": {}},
        "more than one namespace",
    ),
    (
        security.exposure_problems,
        "NetworkPolicy/serve",
        "spec.podSelector",
        {"matchLabels": {"ffaa/part": "scan"}},
        "has no port 8000",
    ),
    (
        security.exposure_problems,
        "NetworkPolicy/metrics",
        "spec.ingress.0.ports.0.port",
        8000,
        "lets monitoring send requests",
    ),
    (security.rights_problems, "Role", "rules.0.verbs.2", "delete", "may delete"),
    (security.rights_problems, "Role", "rules.0.resources", ["*"], "rights on"),
    (security.rights_problems, "Role", "kind", "ClusterRole", "whole cluster"),
    (security.secret_problems, "ConfigMap/ffaa-nightly", "data.AWS_SECRET_ACCESS_KEY", "x", "AWS_SECRET"),
    (security.secret_problems, "ConfigMap", "kind", "Secret", "is in the manifests"),
    (
        security.secret_problems,
        "RayJob",
        f"{ENGINE_POD}.containers.0.env.0",
        {"name": "HF_TOKEN", "value": "x"},
        "HF_TOKEN",
    ),
    (security.exposure_problems, "ConfigMap", "kind", "Ingress", "leads to a pod"),
    (security.exposure_problems, "RayJob", f"{HEAD}.serviceType", "LoadBalancer", "ClusterIP"),
    (security.exposure_problems, "RayJob", f"{HEAD}.enableIngress", True, "ingress"),
    (security.exposure_problems, "NetworkPolicy/default-deny", "spec.policyTypes", ["Ingress"], "by default"),
    (security.exposure_problems, "NetworkPolicy/ray-dashboard", "spec.ingress.0.from", None, "more than one"),
    (security.exposure_problems, "NetworkPolicy/ray-dashboard", "spec.ingress.0.ports", None, "every port"),
    (
        security.exposure_problems,
        "NetworkPolicy/metrics",
        "spec.ingress.0.ports.0.port",
        8265,
        "monitoring reach",
    ),
    (
        security.exposure_problems,
        "NetworkPolicy/metrics",
        "spec.ingress.0.ports.0.port",
        9090,
        "no port 9090",
    ),
]


@pytest.mark.parametrize(("check", "which", "path", "value", "told"), SECURITY)
def test_a_check_of_security_refuses(
    build: Build, check: Check, which: str, path: str, value: Any, told: str
) -> None:
    assert is_refused(build("gpu"), check, which, path, value, told)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("spec.type", "LoadBalancer", "leads to a pod"),
        ("spec.selector", {"ffaa/component": "gateway"}, "leads to a pod"),
    ],
)
def test_a_service_of_kubernetes_that_opens_a_door_is_refused(
    build: Build, path: str, value: Any, told: str
) -> None:
    rendered = build("cpu-dev")
    put(kind(rendered, "Service"), path, value)
    assert told_of(security.exposure_problems, rendered, told)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("spec.template.spec.containers.0.image", "docker.io/valkey/valkey:latest", "is of no version"),
        ("spec.template.spec.securityContext.runAsUser", None, "redis: runAsUser"),
        ("spec.template.spec.containers.0.securityContext", {}, "redis/redis: readOnly"),
        ("spec.template.metadata.labels", {"app": "redis"}, "Service redis: no pod"),
    ],
)
def test_another_projects_pod_is_held_against_the_same(
    build: Build, path: str, value: Any, told: str
) -> None:
    rendered = build("cpu-dev")
    put(kind(rendered, "StatefulSet"), path, value)
    checks = (
        security.pod_security_problems,
        consistency.version_problems,
        consistency.reference_problems,
    )
    assert any(told_of(check, rendered, told) for check in checks)
