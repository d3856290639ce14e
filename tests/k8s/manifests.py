"""What an overlay renders to, and the pods that will come of it."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ray_jobs.nightly.command import _pair
from ray_jobs.nightly.night import Night, rayjob

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(folder.name for folder in (ROOT / "k8s" / "overlays").iterdir())

Manifest = dict[str, Any]

STORAGE = "ffaa-storage"
"""The Secret, made by hand or absent, with the keys of storage."""
SOURCES = {"configMapRef": "ConfigMap", "secretRef": "Secret"}
"""What a container may take all its variables from, by the field that names it."""
VALUES = {"ConfigMap": "data", "Secret": "stringData"}


@dataclass(frozen=True)
class Pod:
    """A pod as its manifest describes it; `group` is Ray's, None for a pod that is none of Ray's. One that is
    `own` is of this project's image.
    """

    name: str
    template: Manifest
    group: str | None = None
    own: bool = True

    @property
    def spec(self) -> Manifest:
        return self.template["spec"]

    @property
    def labels(self) -> dict[str, str]:
        return self.template["metadata"]["labels"]

    @property
    def containers(self) -> list[Manifest]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


class Rendered:
    """The manifests of an overlay."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self.manifests = manifests

    def of_kind(self, kind: str) -> list[Manifest]:
        return [manifest for manifest in self.manifests if manifest["kind"] == kind]

    def named(self, kind: str, name: str) -> Manifest | None:
        return next((found for found in self.of_kind(kind) if found["metadata"]["name"] == name), None)

    @property
    def cronjob(self) -> Manifest:
        [cronjob] = self.of_kind("CronJob")
        return cronjob

    @property
    def template(self) -> Manifest:
        [template] = self.of_kind("RayJob")
        return template

    @property
    def cluster(self) -> Manifest:
        return self.template["spec"]["rayClusterSpec"]

    @property
    def service(self) -> Manifest:
        [service] = self.of_kind("RayService")
        return service

    @property
    def clusters(self) -> dict[str, Manifest]:
        """Ray's clusters, of the scan and of the service."""
        return {"scan": self.cluster, "service": self.service["spec"]["rayClusterConfig"]}

    @property
    def service_groups(self) -> dict[str, Manifest]:
        groups = self.clusters["service"]["workerGroupSpecs"]
        return {group["groupName"]: group for group in groups}

    @property
    def service_values(self) -> Manifest:
        """The ConfigMap of what values.yaml says of the service, whose name has a hash at its end."""
        [values] = [found for found in self.of_kind("ConfigMap") if _is_hashed(found, "ffaa-service")]
        return values

    @property
    def groups(self) -> dict[str, Manifest]:
        return {group["groupName"]: group for group in self.cluster["workerGroupSpecs"]}

    @property
    def tonight(self) -> Manifest:
        """The RayJob that the CronJob's command makes of the template."""
        nightly = self.nightly.containers[0]
        arguments = [expanded(argument, self.environment(nightly)) for argument in nightly["args"]]
        given = [argument.partition("=")[::2] for argument in arguments]
        workers = {
            group: int(n) for name, value in given if name == "--workers" for group, n in [_pair(value)]
        }
        labels = dict(_pair(value) for name, value in given if name == "--label")
        night = Night(
            name="ffaa-nightly-20251121-1430", run="2025-11-21T14:30Z", workers=workers, labels=labels
        )
        return rayjob(self.template, night, 10)

    @property
    def nightly(self) -> Pod:
        return Pod("nightly", self.cronjob["spec"]["jobTemplate"]["spec"]["template"])

    def ray_pods(self) -> list[Pod]:
        groups = [("head", self.cluster["headGroupSpec"]), *self.groups.items()]
        return [Pod(name, group["template"], name) for name, group in groups]

    def service_pods(self) -> list[Pod]:
        cluster = self.clusters["service"]
        groups = [("head", cluster["headGroupSpec"]), *self.service_groups.items()]
        return [Pod(f"service-{name}", group["template"], name) for name, group in groups]

    def own_pods(self) -> list[Pod]:
        return [self.nightly, *self.ray_pods(), *self.service_pods()]

    def pods(self) -> list[Pod]:
        others = [
            Pod(found["metadata"]["name"], found["spec"]["template"], own=False)
            for found in self.of_kind("StatefulSet")
        ]
        return [*self.own_pods(), *others]

    def environment(self, container: Manifest) -> dict[str, str]:
        """Variables of a container; those from the pod's own fields have its path as their value."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            for kind, name in named_in(source):
                found |= (self.named(kind, name) or {}).get(VALUES[kind], {})
        for entry in container.get("env", []):
            found[entry["name"]] = entry.get("value") or self._referred(entry["valueFrom"])
        return found

    def _referred(self, source: Manifest) -> str:
        reference = source.get("configMapKeyRef")
        if reference is None:
            return str(source)
        values = self.named("ConfigMap", reference["name"]) or {"data": {}}
        return str(values["data"].get(reference["key"], ""))


def _is_hashed(manifest: Manifest, name: str) -> bool:
    return bool(re.fullmatch(rf"{name}-[0-9a-z]{{10}}", manifest["metadata"]["name"]))


def named_in(source: Manifest) -> Iterator[tuple[str, str]]:
    """Kind and name of what an entry of `envFrom` names."""
    yield from ((kind, source[field]["name"]) for field, kind in SOURCES.items() if field in source)


def expanded(text: str, environment: dict[str, str]) -> str:
    """As kubelet does: $(NAME) by its value, and left as it is where there is none."""
    return re.sub(r"\$\((\w+)\)", lambda name: environment.get(name[1], name[0]), text)


def render(overlay: str, root: Path = ROOT) -> Rendered:
    """Build an overlay by `kubectl kustomize`."""
    folder = root / "k8s" / "overlays" / overlay
    built = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return Rendered([manifest for manifest in yaml.safe_load_all(built.stdout) if manifest])


def selected(selector: Manifest, pods: list[Pod]) -> list[Pod]:
    """The pods that a label selector matches."""
    return [pod for pod in pods if all(_matches(pod.labels, *rule) for rule in _rules(selector))]


def _rules(selector: Manifest) -> Iterator[tuple[str, list[str]]]:
    for key, value in selector.get("matchLabels", {}).items():
        yield key, [value]
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        yield expression["key"], expression["values"]


def _matches(labels: dict[str, str], key: str, values: list[str]) -> bool:
    return labels.get(key) in values
