"""What manifests must have though nothing else would miss it: bounds, the bundle, keys, places, ways out."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from tests.k8s.manifests import STORAGE, Manifest, Pod, Rendered, selected

LEAST_PRIORITY = -10
"""Cluster Autoscaler's `--expendable-pods-priority-cutoff`: it starts no node for pods below it."""
HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
SPREAD = {"crop": {HOST}, "gateway": {HOST, ZONE}}
GPU = "nvidia.com/gpu"
METADATA = [ip_address("169.254.169.254"), ip_address("fd00:ec2::254")]
"""Where a machine gives its own credentials to whoever asks."""
ANYWHERE = {443, 6443}
"""Ports that may be reached at any address: HTTPS, and Kubernetes' API. Redis, too, has its own."""


def deadline_problems(rendered: Rendered) -> Iterator[str]:
    """Nights that may last for ever, and clusters that stay after them."""
    spec = rendered.template["spec"]
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds", "ttlSecondsAfterFinished"):
        if field not in spec:
            yield f"the RayJob has no {field}"
    of_job = rendered.cronjob["spec"]["jobTemplate"]["spec"].get("activeDeadlineSeconds")
    if of_job is None:
        yield "a Job that never starts would leave out every later night"
    elif of_job <= spec.get("activeDeadlineSeconds", 0) + spec.get("preRunningDeadlineSeconds", 0):
        yield "the Job ends before its RayJob must"


def bundle_problems(rendered: Rendered) -> Iterator[str]:
    """Pods that need the bundle and fetch none, or one that is not held against its digest."""
    digest = "--sha256=$(FFAA_BUNDLE_SHA256)"
    for pod in _engines_and_scans_head(rendered):
        fetching = [each for each in pod.spec.get("initContainers", []) if each["name"] == "bundle"]
        if not fetching:
            yield f"{pod.name} fetches no bundle"
        elif fetching[0]["args"][:3] != ["ffaa", "bundle", "fetch"] or digest not in fetching[0]["args"]:
            yield f"{pod.name} does not hold the bundle against {digest}"


def storage_problems(rendered: Rendered) -> Iterator[str]:
    """Containers that reach storage and would not be given keys where the platform has no identities."""
    wanted = {"secretRef": {"name": STORAGE, "optional": True}}
    for pod in _all_of_ray(rendered):
        for container in pod.containers:
            if wanted not in container.get("envFrom", []):
                yield f"{pod.name}/{container['name']}: no keys of the optional Secret {STORAGE}"


def priority_problems(rendered: Rendered) -> Iterator[str]:
    """Pods of no priority, or of one with which no node is started for them."""
    values = {each["metadata"]["name"]: each["value"] for each in rendered.of_kind("PriorityClass")}
    for pod in _all_of_ray(rendered):
        if "priorityClassName" not in pod.spec:
            yield f"{pod.name} has no priorityClassName"
    for name, value in values.items():
        if value < LEAST_PRIORITY:
            yield f"{name} is below {LEAST_PRIORITY}: the Cluster Autoscaler starts no node for it"
    if not values.get("ffaa-nightly-worker", 0) < values.get("ffaa-service", 0):
        yield "the scan's workers do not make way for the service"


def spread_problems(rendered: Rendered) -> Iterator[str]:
    """Pods of which one node or zone may take all, and engines that may share a node."""
    for pod in _all_of_ray(rendered):
        for missing in SPREAD.get(str(pod.group), set()) - _spread(pod):
            yield f"{pod.name} is not spread over {missing}"
        if pod.group == "engine" and _has_gpus(pod) and HOST not in _kept_apart(pod):
            yield f"two pods of {pod.name} may share a node"


def budget_problems(rendered: Rendered) -> Iterator[str]:
    """Pods that may be evicted and must not, or the other way round."""
    head = rendered.ray_pods()[0]
    if not _has_budget(rendered, head):
        yield "the scan's head may be evicted"
    gateways = next(pod for pod in rendered.service_pods() if pod.group == "gateway")
    alone = rendered.service_groups["gateway"]["minReplicas"] < 2
    if alone and _has_budget(rendered, gateways):
        yield "the node of the only gateway can never be drained"
    if not alone and not _has_budget(rendered, gateways):
        yield "all gateways may be evicted at once"


def egress_problems(rendered: Rendered) -> Iterator[str]:
    """Ways out that are wider than what is used, or lead to metadata; and one to Redis that is missing."""
    host, _, redis = rendered.service_values["data"]["REDIS_ADDRESS"].rpartition(":")
    to_redis = rendered.named("NetworkPolicy", "to-redis") or {"spec": {"egress": []}}
    if not host or redis not in {str(port) for rule in to_redis["spec"]["egress"] for port in _ports(rule)}:
        yield f"the policy to-redis does not let through to port {redis}, which REDIS_ADDRESS says"
    for policy in rendered.of_kind("NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            name, ours = policy["metadata"]["name"], policy["spec"]["podSelector"]
            if rule.get("to") == [{"podSelector": ours}] and selected(ours, rendered.pods()):
                continue
            if not rule.get("ports"):
                yield f"NetworkPolicy {name} lets out at every port"
            allowed = ANYWHERE | ({int(redis)} if policy is to_redis else set())
            if _leads_anywhere(rule) and (extra := _ports(rule) - allowed):
                yield f"NetworkPolicy {name} lets out to any address at {', '.join(map(str, sorted(extra)))}"
            yield from _metadata_problems(name, rule)


def _metadata_problems(name: str, rule: Manifest) -> Iterator[str]:
    for block in (peer["ipBlock"] for peer in rule.get("to", []) if "ipBlock" in peer):
        for address in METADATA:
            excepted = [ip_network(each) for each in block.get("except", [])]
            if address in ip_network(block["cidr"]) and not any(address in each for each in excepted):
                yield f"NetworkPolicy {name} lets out to the machine's metadata at {address}"


def _ports(rule: Manifest) -> set[int]:
    return {port["port"] for port in rule.get("ports", [])}


def _leads_anywhere(rule: Manifest) -> bool:
    """Whether any address is meant: by no peer, or by a block of all."""
    return not rule.get("to") or any(
        peer.get("ipBlock", {}).get("cidr", "")[-2:] == "/0" for peer in rule["to"]
    )


def _all_of_ray(rendered: Rendered) -> list[Pod]:
    return [*rendered.ray_pods(), *rendered.service_pods()]


def _engines_and_scans_head(rendered: Rendered) -> list[Pod]:
    return [pod for pod in _all_of_ray(rendered) if pod.group == "engine" or pod.name == "head"]


def _has_gpus(pod: Pod) -> bool:
    return GPU in pod.spec["containers"][0]["resources"]["limits"]


def _spread(pod: Pod) -> set[str]:
    """Over what such pods are spread: keys of topology."""
    constraints = pod.spec.get("topologySpreadConstraints", [])
    return {each["topologyKey"] for each in constraints if selected(each["labelSelector"], [pod])}


def _kept_apart(pod: Pod) -> set[str]:
    """On what there is never a second one."""
    affinity = pod.spec.get("affinity", {}).get("podAntiAffinity", {})
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", [])
    return {each["topologyKey"] for each in terms if selected(each["labelSelector"], [pod])}


def _has_budget(rendered: Rendered, pod: Pod) -> bool:
    budgets = rendered.of_kind("PodDisruptionBudget")
    return any(
        budget["spec"].get("minAvailable") and selected(budget["spec"]["selector"], [pod])
        for budget in budgets
    )
