"""Each check refuses a manifest that is broken where it looks. Unbroken they pass: test_overlays.py."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.k8s import consistency, nights, security, services
from tests.k8s.manifests import Manifest, Rendered
from tests.k8s.operator_rules import operator_problems, service_problems
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

SERVICE = "spec.rayClusterConfig"
SERVICE_HEAD, GATEWAYS, ENGINES = (
    f"{SERVICE}.{group}" for group in ("headGroupSpec", "workerGroupSpecs.0", "workerGroupSpecs.1")
)
SERVICE_HEAD_POD, GATEWAYS_POD, ENGINES_POD = (
    f"{group}.template.spec" for group in (SERVICE_HEAD, GATEWAYS, ENGINES)
)
INCREMENTAL = "spec.upgradeStrategy.clusterUpgradeOptions"


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
        f"{ENGINES_POD}.initContainers.0.args.3",
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


HOOK = "lifecycle.preStop.exec.command"
SERVICES: list[tuple[Callable[..., Any], str, str, Any, str]] = [
    (services.change_problems, "RayService", f"{GATEWAYS_POD}.containers.0.env.3", None, "no new cluster"),
    (
        services.ending_problems,
        "RayService",
        "spec.rayClusterDeletionDelaySeconds",
        60,
        "the old cluster goes before",
    ),
    (
        services.ending_problems,
        "RayService",
        f"{GATEWAYS_POD}.containers.0.{HOOK}.1",
        "59",
        "not service.dead",
    ),
    (
        services.ending_problems,
        "RayService",
        f"{GATEWAYS_POD}.containers.0.{HOOK}.1",
        "599",
        "does not drain",
    ),
    (
        services.ending_problems,
        "RayService",
        f"{ENGINES_POD}.terminationGracePeriodSeconds",
        None,
        "engine: not service.dead",
    ),
    (services.ending_problems, "RayService", f"{ENGINES_POD}.containers.0.lifecycle", None, "nothing waits"),
    (
        services.door_problems,
        "RayService",
        f"{ENGINES_POD}.containers.0.env.2.value",
        "serve.proxy",
        "serve.proxy:middlewares",
    ),
    (
        services.door_problems,
        "RayService",
        f"{GATEWAYS_POD}.containers.0.env.4",
        None,
        "service-gateway: FFAA_API_KEYS",
    ),
    (
        services.door_problems,
        "RayService",
        "spec.excludeHeadPodFromServeSvc",
        None,
        "the head takes requests",
    ),
    (
        services.door_problems,
        "RayService",
        f"{SERVICE_HEAD_POD}.initContainers",
        [{"name": "bundle"}],
        "the head fetches",
    ),
    (services.placement_problems, "RayService", f"{ENGINES}.maxReplicas", 3, "maxReplicas is 3"),
    (services.placement_problems, "RayService", f"{GATEWAYS}.minReplicas", 1, "minReplicas is 1"),
    (
        services.placement_problems,
        "RayService",
        f"{ENGINES}.rayStartParams",
        {},
        "Gateway fits into pods of engine, gateway",
    ),
    (
        services.configuration_problems,
        "ConfigMap/ffaa-service",
        "data.REDIS_ADDRESS",
        "",
        "REDIS_ADDRESS is e",
    ),
    (services.configuration_problems, "ConfigMap/ffaa-service", "data.FFAA_BUNDLE_SHA256", "0", "no sha256"),
    (services.configuration_problems, "ConfigMap/ffaa-service", "data.SERVE_CONFIG", "", "not what values"),
    (
        services.configuration_problems,
        "RayService",
        f"{GATEWAYS_POD}.containers.0.ports.1.containerPort",
        8001,
        "no port serve 8000",
    ),
]


@pytest.mark.parametrize(
    ("check", "which", "path", "value", "told"), SECURITY + CONSISTENCY + NIGHTS + SERVICES
)
def test_a_check_refuses(
    build: Build, check: Callable[[Rendered], Any], which: str, path: str, value: Any, told: str
) -> None:
    rendered = build("gpu")
    put(kind(rendered, which), path, value)
    assert told_of(check, rendered, told)


@pytest.mark.parametrize(
    ("check", "said", "instead", "told"),
    [
        (
            services.configuration_problems,
            "port: 8000",
            "port: http",
            "Ray Serve does not take it",
        ),
        (services.configuration_problems, "http_options", "http_option", "does not know http_option"),
        (services.configuration_problems, "port: 8000", "ports: 8000", "does not know http_options.ports"),
        (
            services.configuration_problems,
            "target_ongoing",
            "goal_ongoing",
            r"\[0\].autoscaling_config.goal_",
        ),
        (services.configuration_problems, "num_gpus", "gpus", "ray_actor_options.gpus"),
        (
            services.configuration_problems,
            "uri_prefixes",
            "prefixes",
            "ffaa serve does not take it.*prefixes",
        ),
        (services.configuration_problems, "service:", "bundle: /a\n      service:", "args.bundle is not"),
        (
            services.configuration_problems,
            "uri_prefixes",
            "anonymous: true\n        uri_prefixes",
            "everybody",
        ),
        (services.configuration_problems, "name: Judge", "name: Mids", "Judge, Mids"),
        (services.placement_problems, "name: Memory", "name: Memory\n        num_replicas: 2", "must be one"),
        (services.placement_problems, "num_cpus: 2.5", "num_cpus: 5", "Gateway fits into no pod"),
        (
            services.placement_problems,
            "num_cpus: 1.5",
            "num_cpus: 0.5",
            "Memory fits into pods of engine, gat",
        ),
        (
            services.placement_problems,
            "num_cpus: 0.1, num_gpus: 0.9",
            "num_cpus: 0.1",
            "Engine fits into pods",
        ),
        (
            services.placement_problems,
            "min_replicas: 1, max_replicas: 4",
            "min_replicas: 2, max_replicas: 4",
            "2",
        ),
        (
            services.ending_problems,
            "service:",
            "service:\n        deadline_seconds: 120",
            "the old cluster goes",
        ),
    ],
)
def test_a_configuration_of_the_service_is_refused(
    build: Build, check: Callable[[Rendered], Any], said: str, instead: str, told: str
) -> None:
    rendered = build("gpu")
    before = rendered.service["spec"]["serveConfigV2"]
    text = before.replace(said, instead)
    assert text != before
    rendered.service["spec"]["serveConfigV2"] = text
    rendered.service_values["data"]["SERVE_CONFIG"] = text
    assert told_of(check, rendered, told)


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
