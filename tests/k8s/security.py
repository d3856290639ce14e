"""Restricted pods, few rights, no open door, no secret in a manifest."""

import re
from collections.abc import Iterator

from tests.k8s.manifests import ROOT, Manifest, Pod, Rendered, selected

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SECRET = re.compile(r"KEY|TOKEN|PASSWORD|SECRET|CREDENTIAL")
DOCKERFILE = ROOT / "infra" / "docker" / "Dockerfile"
USER = re.compile(r"^USER (\S+)", re.MULTILINE)
DASHBOARD, OPERATOR = 8265, "kuberay-system"
SERVE, SERVE_POLICY = 8000, "serve"


def pod_security_problems(rendered: Rendered) -> Iterator[str]:
    """What the restricted Pod Security Standard refuses, and root file systems that can be written."""
    [namespace] = rendered.of_kind("Namespace")
    if namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "the namespace does not enforce the restricted standard"
    for pod in rendered.pods():
        yield from _pod_problems(pod)
        for container in pod.containers:
            yield from _container_problems(f"{pod.name}/{container['name']}", container, pod.spec)
    for name, cluster in rendered.clusters.items():
        if cluster.get("enableInTreeAutoscaling"):
            head = cluster["headGroupSpec"]["template"]["spec"]
            yield from _container_problems(f"{name} autoscaler", cluster["autoscalerOptions"], head)


def _pod_problems(pod: Pod) -> Iterator[str]:
    for switch in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(switch):
            yield f"{pod.name}: {switch}"
    for volume in pod.spec.get("volumes", []):
        if not volume.keys() - {"name"} <= VOLUMES:
            yield f"{pod.name}: volume {volume['name']} is of a kind that is not allowed"
    context = pod.spec.get("securityContext", {})
    users = {f"{context.get('runAsUser', 0)}:{context.get('runAsGroup', 0)}"}
    if pod.own:
        users |= set(USER.findall(DOCKERFILE.read_text()))
    if len(users) != 1 or any(re.search(r"\b0\b", user) for user in users):
        yield f"{pod.name}: runAsUser is not the image's: {', '.join(sorted(users))}"
    if pod.spec.get("automountServiceAccountToken") is not (pod.name == "nightly"):
        yield f"{pod.name}: of all pods the nightly one alone has a token of Kubernetes"


def _container_problems(name: str, container: Manifest, pod_spec: Manifest) -> Iterator[str]:
    context = pod_spec.get("securityContext", {}) | container.get("securityContext", {})
    wanted = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for field, value in wanted.items():
        if context.get(field) != value:
            yield f"{name}: {field} is not {value}"
    if context.get("privileged"):
        yield f"{name}: privileged"


def rights_problems(rendered: Rendered) -> Iterator[str]:
    """Rights beyond reading and creating RayJobs in the own namespace."""
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        for found in rendered.of_kind(kind):
            yield f"{kind} {found['metadata']['name']}: rights in the whole cluster"
    for role in rendered.of_kind("Role"):
        for rule in role["rules"]:
            if rule["apiGroups"] != ["ray.io"] or rule["resources"] != ["rayjobs"]:
                yield f"Role {role['metadata']['name']}: rights on {rule['apiGroups']} {rule['resources']}"
            if extra := set(rule["verbs"]) - {"get", "create"}:
                yield f"Role {role['metadata']['name']}: may {', '.join(sorted(extra))}"


def secret_problems(rendered: Rendered) -> Iterator[str]:
    """Secrets that a manifest spells out."""
    for secret in rendered.of_kind("Secret"):
        yield f"Secret {secret['metadata']['name']} is in the manifests"
    for values in rendered.of_kind("ConfigMap"):
        for name in filter(SECRET.search, values["data"]):
            yield f"ConfigMap {values['metadata']['name']} has {name}"
    for pod in rendered.pods():
        for container in pod.containers:
            for entry in container.get("env", []):
                if "value" in entry and SECRET.search(entry["name"]):
                    yield f"{pod.name}/{container['name']}: {entry['name']} is spelt out"
    redis = rendered.clusters["service"].get("gcsFaultToleranceOptions", {})
    if "secretKeyRef" not in redis.get("redisPassword", {}).get("valueFrom", {}):
        yield "the password of Redis is no reference to a Secret"


def exposure_problems(rendered: Rendered) -> Iterator[str]:
    """Ways from outside to a pod, above all to Ray's dashboard and job API."""
    for kind in ("Ingress", "HTTPRoute", "Gateway"):
        for found in rendered.of_kind(kind):
            yield f"{kind} {found['metadata']['name']} leads to a pod"
    for found in rendered.of_kind("Service"):
        leads_to = selected({"matchLabels": found["spec"]["selector"]}, rendered.pods())
        if found["spec"].get("type", "ClusterIP") != "ClusterIP" or any(pod.own for pod in leads_to):
            yield f"Service {found['metadata']['name']} leads to a pod"
    for name, cluster in rendered.clusters.items():
        head = cluster["headGroupSpec"]
        if head.get("serviceType") != "ClusterIP" or head.get("enableIngress"):
            yield f"{name}: the head has an ingress, or a service of another type than ClusterIP"
    policies = rendered.of_kind("NetworkPolicy")
    if not any(_denies_all(policy["spec"]) for policy in policies):
        yield "no policy denies all traffic by default"
    for policy in policies:
        for rule in policy["spec"].get("ingress", []):
            yield from _ingress_problems(policy, rule, rendered.pods())


def _denies_all(spec: Manifest) -> bool:
    rules = {"ingress", "egress"} & spec.keys()
    return not spec["podSelector"] and set(spec["policyTypes"]) == {"Ingress", "Egress"} and not rules


def _ingress_problems(policy: Manifest, rule: Manifest, pods: list[Pod]) -> Iterator[str]:
    name, ours = policy["metadata"]["name"], policy["spec"]["podSelector"]
    for peer in rule.get("from", [{}]):
        if peer == {"podSelector": ours}:
            continue
        namespace = (
            peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
        )
        if peer.keys() == {"podSelector"} and selected(peer["podSelector"], pods):
            namespace = "our own"
        ports = {port["port"] for port in rule.get("ports", [])}
        if not namespace or not ports:
            yield f"NetworkPolicy {name} lets in more than one namespace, or at every port"
        if SERVE in ports and name != SERVE_POLICY:
            yield f"NetworkPolicy {name} lets {namespace} send requests, which {SERVE_POLICY} decides"
        if DASHBOARD in ports and namespace != OPERATOR:
            yield f"NetworkPolicy {name} lets {namespace} reach the dashboard"
        for pod in selected(ours, pods):
            listening = {port["containerPort"] for c in pod.containers for port in c.get("ports", [])}
            for port in ports - listening:
                yield f"NetworkPolicy {name}: {pod.name} has no port {port}"
