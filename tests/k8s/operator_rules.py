"""What KubeRay's operator (v1.7) refuses after the API server has taken it, or what we do not want of it."""

import re
from collections.abc import Iterator

from ray_jobs.nightly.night import MAX_NAME
from tests.k8s.manifests import Manifest

FIRST_WITH_TOKENS = (2, 52)
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
START_RESOURCES = {"num-cpus", "num-gpus", "memory", "resources"}


def operator_problems(rayjob: Manifest) -> Iterator[str]:
    """Each rule of the operator that a RayJob breaks."""
    name, spec = rayjob["metadata"]["name"], rayjob["spec"]
    if len(name) > MAX_NAME or not NAME.fullmatch(name):
        yield f"the name {name} is no DNS label of at most {MAX_NAME} characters"
    if not spec.get("shutdownAfterJobFinishes"):
        yield "without shutdownAfterJobFinishes neither suspend nor ttlSecondsAfterFinished is taken"
    if spec.get("ttlSecondsAfterFinished", 0) < 0:
        yield "ttlSecondsAfterFinished is negative"
    if spec.get("activeDeadlineSeconds", 1) <= 0:
        yield "activeDeadlineSeconds is not positive"
    if spec.get("backoffLimit", 0) != 0:
        yield "backoffLimit would try every exit code again"
    if spec.get("clusterSelector"):
        yield "clusterSelector would take an existing cluster"
    yield from cluster_problems(spec.get("rayClusterSpec"))


UPGRADES = {"NewClusterWithIncrementalUpgrade", "NewCluster", "None"}
SET_BY_KUBERAY = {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME", "RAY_external_storage_namespace"}


def service_problems(rayservice: Manifest) -> Iterator[str]:
    """The same of a RayService."""
    name, spec = rayservice["metadata"]["name"], rayservice["spec"]
    if len(name) > MAX_NAME or not NAME.fullmatch(name):
        yield f"the name {name} is no DNS label of at most {MAX_NAME} characters"
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 0:
        yield "rayClusterDeletionDelaySeconds is negative"
    cluster = spec["rayClusterConfig"]
    yield from cluster_problems(cluster)
    yield from _upgrade_problems(spec.get("upgradeStrategy", {}), cluster)
    yield from _redis_problems(cluster)
    head = cluster["headGroupSpec"]
    if head.get("headService", {}).get("metadata", {}).get("name"):
        yield "the head's Service has a name of its own, but every cluster makes one"
    ports = {
        port["name"]: port["containerPort"] for port in head["template"]["spec"]["containers"][0]["ports"]
    }
    if not {"dashboard", "serve"} <= ports.keys():
        yield "KubeRay makes its Services of the head's ports, and there is no port dashboard or serve"


def _upgrade_problems(strategy: Manifest, cluster: Manifest) -> Iterator[str]:
    options = strategy.get("clusterUpgradeOptions", {})
    if strategy.get("type", "NewCluster") not in UPGRADES:
        yield f"upgradeStrategy.type {strategy['type']} is none of {', '.join(sorted(UPGRADES))}"
    if strategy.get("type") == "None":
        yield "without a new cluster, engines of two kinds would serve beside each other"
    if strategy.get("type") != "NewClusterWithIncrementalUpgrade":
        return
    if not cluster.get("enableInTreeAutoscaling"):
        yield "an incremental upgrade needs the autoscaler"
    if not options.get("gatewayClassName"):
        yield "an incremental upgrade needs gatewayClassName"
    for percent in ("maxSurgePercent", "stepSizePercent"):
        if not 0 < options.get(percent, 100) <= 100:
            yield f"{percent} is not between 1 and 100"
    if options.get("intervalSeconds", 0) <= 0:
        yield "intervalSeconds is not positive"


def _redis_problems(cluster: Manifest) -> Iterator[str]:
    redis, head = cluster.get("gcsFaultToleranceOptions"), cluster["headGroupSpec"]
    if not redis or not redis.get("redisAddress"):
        yield "without Redis the loss of the head ends the cluster"
        return
    if redis.get("externalStorageNamespace"):
        yield "externalStorageNamespace would be the same for the old cluster and the new one"
    given = {entry["name"] for entry in head["template"]["spec"]["containers"][0].get("env", [])}
    if forbidden := given & SET_BY_KUBERAY:
        yield f"the head has {', '.join(sorted(forbidden))}, which gcsFaultToleranceOptions are for"
    if {"redis-password", "redis-username"} & head["rayStartParams"].keys():
        yield "the head's rayStartParams have what gcsFaultToleranceOptions are for"


def cluster_problems(cluster: Manifest | None) -> Iterator[str]:
    """The same of its cluster."""
    if not cluster:
        yield "rayClusterSpec is missing"
        return
    version = tuple(int(part) for part in cluster.get("rayVersion", "0").split(".")[:2])
    if cluster.get("authOptions", {}).get("mode") != "token" or version < FIRST_WITH_TOKENS:
        yield "authOptions.mode is not token, or rayVersion is none that has tokens"
    groups = {"head": cluster["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in cluster.get("workerGroupSpecs", [])}
    for name, group in groups.items():
        yield from _group_problems(name, group)
    if cluster.get("enableInTreeAutoscaling") and cluster.get("autoscalerOptions", {}).get("version") != "v2":
        yield "the autoscaler is not v2"
    for name, group in list(groups.items())[1:]:
        if "idleTimeoutSeconds" in group and not cluster.get("enableInTreeAutoscaling"):
            yield f"{name}: idleTimeoutSeconds needs the autoscaler"
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"{name}: replicas are not between minReplicas and maxReplicas"


def _group_problems(name: str, group: Manifest) -> Iterator[str]:
    start, pod = group.get("rayStartParams", {}), group["template"]["spec"]
    if not pod["containers"]:
        yield f"{name} has no container"
    if pod.get("restartPolicy") != "Never":
        yield f"{name}: restartPolicy is not Never, which autoscaler v2 needs"
    if START_RESOURCES & start.keys() and group.get("resources"):
        yield f"{name}: resources in rayStartParams and beside it"
    if "labels" in start:
        yield f"{name}: rayStartParams has labels"
