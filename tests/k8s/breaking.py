"""Breaking a manifest that was built, and whether a check says so."""

import re
from collections.abc import Callable
from typing import Any

from tests.k8s.manifests import Manifest, Rendered

Build = Callable[[str], Rendered]
Check = Callable[[Rendered], Any]

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


def told_of(check: Check, rendered: Rendered, told: str) -> bool:
    """Whether the check names such a problem, by a regular expression."""
    return any(re.search(told, problem, re.DOTALL) for problem in check(rendered))


def is_refused(rendered: Rendered, check: Check, which: str, path: str, value: Any, told: str) -> bool:
    """Whether the check names such a problem once `path` of that manifest is set to `value`."""
    put(kind(rendered, which), path, value)
    return told_of(check, rendered, told)
