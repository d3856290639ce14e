"""Each check refuses a manifest that is broken where it looks. Unbroken they pass: test_overlays.py."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.k8s import consistency, nights, security
from tests.k8s.manifests import Manifest, Rendered
from tests.k8s.operator_rules import operator_problems
from tests.k8s.schemas import Definitions, core_problems, runtime_environment_problems

Build = Callable[[str], Rendered]


def put(manifest: Any, path: str, value: Any) -> None:
    """Set what `path` names ('spec.containers.0.image'); None removes it."""
    *parents, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
    for step in parents:
        manifest = manifest[step]
    if value is None:
        del manifest[last]
    elif isinstance(manifest, list) and last == len(manifest):
        manifest.append(value)
    else:
        manifest[last] = value


def kind(rendered: Rendered, name: str) -> Manifest:
    """The first manifest of this kind, or one by kind and name ('ConfigMap/ffaa-score')."""
    wanted, _, of_name = name.partition("/")
    return next(m for m in rendered.of_kind(wanted) if m["metadata"]["name"].startswith(of_name))


POD = "spec.jobTemplate.spec.template.spec"
JOB = "spec.jobTemplate.spec"
CLUSTER = "spec.rayClusterSpec"
HEAD = f"{CLUSTER}.headGroupSpec"
ENGINE = f"{CLUSTER}.workerGroupSpecs.1"
HEAD_POD, ENGINE_POD = f"{HEAD}.template.spec", f"{ENGINE}.template.spec"


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
    ("text", "told"),
    [("env_vars: {A: 1}", "must be of type"), ("env_varz: {A: b}", "unknown env_varz"), ("pip: 7", "pip")],
)
def test_ray_refuses_the_runtime_environment(build: Build, text: str, told: str) -> None:
    rayjob = build("gpu").template
    put(rayjob, "spec.runtimeEnvYAML", text)
    assert any(told in problem for problem in runtime_environment_problems(rayjob))


SECURITY: list[tuple[Callable[..., Any], str, str, Any, str]] = [
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
        "autoscaler: capabilities",
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

CONSISTENCY: list[tuple[Callable[..., Any], str, str, Any, str]] = [
    (consistency.command_problems, "CronJob", f"{POD}.containers.0.args.6", "--retries=3", "--retries"),
    (
        consistency.command_problems,
        "CronJob",
        f"{POD}.containers.0.command",
        ["kubectl"],
        "neither ffaa nor ray",
    ),
    (consistency.command_problems, "RayJob", f"{HEAD_POD}.initContainers.0.args.1", "get", "invalid choice"),
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
    (consistency.reference_problems, "ConfigMap/ffaa-score", "metadata.name", "x", "no ConfigMap ffaa-score"),
    (consistency.reference_problems, "RoleBinding", "roleRef.name", "x", "no Role x"),
    (consistency.reference_problems, "CronJob", f"{POD}.containers.0.args.1", "x", "no RayJob x"),
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

NIGHTS: list[tuple[Callable[..., Any], str, str, Any, str]] = [
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


@pytest.mark.parametrize(("check", "which", "path", "value", "told"), SECURITY + CONSISTENCY + NIGHTS)
def test_a_check_refuses(
    build: Build, check: Callable[[Rendered], Any], which: str, path: str, value: Any, told: str
) -> None:
    rendered = build("gpu")
    put(kind(rendered, which), path, value)
    assert told_of(check, rendered, told)


@pytest.mark.parametrize(
    ("which", "path", "value", "told"),
    [
        ("CronJob", f"{POD}.containers.0.args.6", None, "do not ask for it"),
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


def told_of(check: Callable[[Rendered], Any], rendered: Rendered, told: str) -> bool:
    return any(re.search(told, problem, re.DOTALL) for problem in check(rendered))
