"""The service: its configuration, where its parts run, and what becomes of requests when a part goes."""

import math
import re
import tempfile
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeDeploySchema

from ffaa_core import cli
from ffaa_core.commands.options import settings_of
from ffaa_core.errors import ConfigurationError
from serve.deployment import Deployment
from serve.proxy import IMPORT_PATH, VARIABLE
from tests.k8s.manifests import Manifest, Rendered
from tests.k8s.nights import amount

PARTS = {"Gateway": "gateway", "Memory": "gateway", "Engine": "engine", "Judge": "engine"}
"""The deployments, and the worker group that each is for."""
DRAIN = re.compile(
    r"until ray drain-node [^;\n]*--deadline-remaining-seconds (?P<seconds>\d+); do\n"
    r"\s*grep -qs [^;\n]* && ray health-check [^;\n]*\|\| exit 0\n"
    r"\s*sleep 5\n"
    r"done\n"
)


def configuration_problems(rendered: Rendered) -> Iterator[str]:
    """What `ffaa serve --config` or Ray refuses of the file, and what Ray would pass over in silence."""
    text = rendered.service["spec"]["serveConfigV2"]
    if text != rendered.service_values["data"]["SERVE_CONFIG"]:
        yield "serveConfigV2 is not what values.yaml says"
    content = yaml.safe_load(text)
    try:
        schema = ServeDeploySchema.model_validate(content)
    except ValidationError as error:
        yield f"Ray Serve does not take it: {error}"
        return
    yield from (f"Ray Serve does not know {path}" for path in _unknown(schema, content))
    try:
        deployment = serves(text)
    except ConfigurationError as error:
        yield f"ffaa serve does not take it: {error}"
        return
    if "bundle" in deployment.application["args"]:
        yield "args.bundle is not FFAA_BUNDLE, which is fetched and verified"
    if deployment.config.service.anonymous:
        yield "everybody is let in"
    if unknown := parts(rendered).keys() ^ PARTS.keys():
        yield f"a deployment is missing or unknown: {', '.join(sorted(unknown))}"
    port = deployment.address[1]
    for pod in rendered.service_pods():
        ports = {port["name"]: port["containerPort"] for port in pod.spec["containers"][0]["ports"]}
        if ports.get("serve") != port:
            yield f"{pod.name} has no port serve {port}"
    values = rendered.service_values["data"]
    yield from (f"values.yaml: {name} is empty" for name, value in values.items() if not value)
    if len(values["FFAA_BUNDLE_SHA256"]) != 64:
        yield "values.yaml: FFAA_BUNDLE_SHA256 is no sha256"


def serves(text: str) -> Deployment:
    """What `ffaa serve --config FILE` makes of a file with this text.

    Raises:
        ConfigurationError: it refuses it.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "serve.yaml"
        file.write_text(text)
        commands = {entry.name: entry for entry in entry_points(group="ffaa.commands")}
        args = cli._parser(commands, "serve").parse_args(["serve", "--config", str(file)])
        return Deployment.read(args.config, settings_of(args), {"host": args.host, "port": args.port})


def _unknown(model: BaseModel, content: Manifest, path: str = "") -> Iterator[str]:
    """Fields that the model has none for. What is Any to it, such as `args`, is another's matter."""
    for name, value in content.items():
        here = f"{path}.{name}".removeprefix(".")
        if name not in type(model).model_fields:
            yield here
            continue
        inner = getattr(model, name)
        if isinstance(inner, dict) and isinstance(value, dict):
            inner = _named_in(type(model), name, inner)
        if isinstance(inner, BaseModel):
            yield from _unknown(inner, value, here)
        elif isinstance(inner, list) and inner and isinstance(inner[0], BaseModel):
            for index, (each, given) in enumerate(zip(inner, value, strict=True)):
                yield from _unknown(each, given, f"{here}[{index}]")


def _named_in(model: type[BaseModel], name: str, value: dict[str, Any]) -> Any:
    """The value as the model that the field's annotation names, which Ray keeps as a dict."""
    for kind in get_args(model.model_fields[name].annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind.model_validate(value)
    return value


def parts(rendered: Rendered) -> dict[str, Manifest]:
    """What the file says of each deployment, by name."""
    [application] = yaml.safe_load(rendered.service["spec"]["serveConfigV2"])["applications"]
    return {part["name"]: part for part in application["deployments"]}


def placement_problems(rendered: Rendered) -> Iterator[str]:
    """Parts that find no place, that take another's, or whose pods are fewer than the file asks for."""
    groups = {name: room(group) for name, group in rendered.service_groups.items()}
    has_gpus = groups["engine"][1] > 0
    found = parts(rendered)
    if replicas(found["Memory"])[1] != 1:
        yield "of Memory there must be one"
    for name, part in found.items():
        fitting = {group for group, has in groups.items() if _fits(needs(part), has)}
        if not fitting:
            yield f"{name} fits into no pod"
        elif has_gpus and fitting != {PARTS[name]}:
            yield f"{name} fits into pods of {', '.join(sorted(fitting))}, not {PARTS[name]} alone"
    for name, group in rendered.service_groups.items():
        of_group = [part for part, place in PARTS.items() if place == name]
        for which, bound in ((0, "minReplicas"), (1, "maxReplicas")):
            pods = _pods([found[part] for part in of_group], which, groups[name])
            if pods > group[bound]:
                yield f"{name}: {bound} is {group[bound]}, and the file needs {pods}"


def room(group: Manifest) -> tuple[float, float]:
    """Cores and GPUs of a pod, as Ray is told by KubeRay."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    cpus = group["rayStartParams"].get("num-cpus") or math.ceil(amount(limits["cpu"]))
    return float(cpus), float(limits.get("nvidia.com/gpu", 0))


def needs(part: Manifest) -> tuple[float, float]:
    """Cores and GPUs of a replica."""
    options = part["ray_actor_options"]
    return options["num_cpus"], options.get("num_gpus", 0)


def replicas(part: Manifest) -> tuple[int, int]:
    """The least and the most there may be."""
    scaling = part.get("autoscaling_config")
    if scaling:
        return scaling["min_replicas"], scaling["max_replicas"]
    return (part.get("num_replicas", 1),) * 2


def _fits(needed: tuple[float, float], room: tuple[float, float]) -> bool:
    return all(some <= all_of_it for some, all_of_it in zip(needed, room, strict=True))


def _pods(of_group: list[Manifest], which: int, has: tuple[float, float]) -> int:
    """How many pods so many replicas take, each as full as it gets with the largest first."""
    free: list[tuple[float, float]] = []
    wanted = [needs(part) for part in of_group for _ in range(replicas(part)[which])]
    for cpus, gpus in sorted(wanted, reverse=True):
        for index, (free_cpus, free_gpus) in enumerate(free):
            if cpus <= free_cpus + 1e-6 and gpus <= free_gpus + 1e-6:
                free[index] = (free_cpus - cpus, free_gpus - gpus)
                break
        else:
            free.append((has[0] - cpus, has[1] - gpus))
    return len(free)


def change_problems(rendered: Rendered) -> Iterator[str]:
    """Changes of values.yaml that KubeRay would make in the cluster that serves."""
    name = rendered.service_values["metadata"]["name"]
    for pod in rendered.service_pods():
        references = [
            entry.get("valueFrom", {}).get("configMapKeyRef", {}) for entry in _environment(pod.spec)
        ]
        if name not in [reference.get("name") for reference in references]:
            yield f"{pod.name} does not refer to {name}: a change of it would make no new cluster"


def ending_problems(rendered: Rendered) -> Iterator[str]:
    """Pods and clusters that go before their requests are answered."""
    spec = rendered.service["spec"]
    deadline = serves(spec["serveConfigV2"]).config.service.deadline_seconds
    if not deadline < spec.get("rayClusterDeletionDelaySeconds", 60):
        yield "the old cluster goes before service.deadline_seconds"
    for pod in rendered.service_pods()[1:]:
        hook = (
            pod.spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        )
        if not hook or hook[0] != "timeout":
            yield f"{pod.name}: nothing waits for its replicas"
            continue
        waits = float(hook[1])
        if not deadline < waits < pod.spec.get("terminationGracePeriodSeconds", 30):
            yield f"{pod.name}: not service.deadline_seconds < its hook < terminationGracePeriodSeconds"
        drains = DRAIN.match(hook[-1])
        if not drains or float(drains["seconds"]) != waits:
            yield f"{pod.name}: its hook does not drain the node, until it is taken, for as long as it waits"


def door_problems(rendered: Rendered) -> Iterator[str]:
    """Proxies without `serve.proxy`, gateways without keys, a head that takes requests."""
    for pod in rendered.service_pods():
        container = pod.spec["containers"][0]
        environment = rendered.environment(container)
        if environment.get(VARIABLE) != IMPORT_PATH:
            yield f"{pod.name}: {VARIABLE} is not {IMPORT_PATH}"
        if (pod.group != "head") != ("FFAA_API_KEYS" in environment):
            yield f"{pod.name}: FFAA_API_KEYS is for the workers, and for none but them"
    if not rendered.service["spec"].get("excludeHeadPodFromServeSvc"):
        yield "the head takes requests"
    if "bundle" in [each["name"] for each in rendered.service_pods()[0].spec.get("initContainers", [])]:
        yield "the head fetches the bundle: so does the pod that KubeRay makes of it to clean Redis up"


def _environment(spec: Manifest) -> Iterator[Manifest]:
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        yield from container.get("env", [])
