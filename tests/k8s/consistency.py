"""Manifests agree with the program, with Ray, and with one another."""

import argparse
import contextlib
import inspect
import io
import json
import re
import shlex
import tomllib
import warnings
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import PurePosixPath

import click
import ray
import yaml
from ray._private import ray_constants
from ray.dashboard.modules.job import job_supervisor

from ffaa_core import cli
from ffaa_core.errors import ConfigurationError
from ffaa_core.settings import from_mapping
from ray_jobs.score.config import ScoreConfig
from ray_jobs.score.ray_settings import RAY_SETTINGS
from tests.k8s.manifests import ROOT, Manifest, Pod, Rendered, expanded, named_in, selected

VALUE = re.compile(r"\$\((\w+)\)|\$(\w+)")
GIVEN_BY_KUBERAY = {"RAY_ADDRESS"}
OF_EVERY_PROGRAM = {"HOME"}

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray Serve's own, of pydantic
    from ray.scripts.scripts import cli as ray_cli


def command_problems(rendered: Rendered) -> Iterator[str]:
    """Command lines that `ffaa` or `ray` does not understand."""
    for pod in rendered.own_pods():
        for container in pod.containers:
            environment = rendered.environment(container)
            if container.get("command"):
                yield f"{pod.name}/{container['name']}: its command takes the place of the image's tini"
            if line := [*container.get("command", []), *container.get("args", [])]:
                yield from _word_problems([expanded(word, environment) for word in line])
            for line in _hooks(container):
                yield from _word_problems(line)
    yield from _word_problems(entrypoint(rendered, rendered.tonight))
    for group in _groups(rendered):
        known = {option for parameter in ray_cli.commands["start"].params for option in parameter.opts}
        for name in group.get("rayStartParams", {}):
            if f"--{name}" not in known:
                yield f"ray start has no option --{name}"


def _groups(rendered: Rendered) -> Iterator[Manifest]:
    for cluster in rendered.clusters.values():
        yield from (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])


def entrypoint(rendered: Rendered, rayjob: Manifest) -> list[str]:
    """The words of its command, as the shell in the head makes them."""
    environment = rendered.environment(rendered.ray_pods()[0].spec["containers"][0])
    words = shlex.split(rayjob["spec"]["entrypoint"].removeprefix("exec "))
    return [VALUE.sub(lambda name: environment[name[1] or name[2]], word) for word in words]


def _hooks(container: Manifest) -> Iterator[list[str]]:
    for hook in container.get("lifecycle", {}).values():
        command = hook["exec"]["command"]
        yield from (shlex.split(part) for part in re.findall(r"ray [^;|&\n]+", command[-1]))
        if command[0] in ("ray", "ffaa"):
            yield command


def _word_problems(words: list[str]) -> Iterator[str]:
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            if words[0] == "ffaa":
                commands = {entry.name: entry for entry in entry_points(group="ffaa.commands")}
                cli._parser(commands, words[1]).parse_args(words[1:])
            elif words[0] == "ray":
                _parse_ray(words[1:])
            else:
                yield f"neither ffaa nor ray: {shlex.join(words)}"
    except (SystemExit, argparse.ArgumentError, click.ClickException) as error:
        yield f"{shlex.join(words)}: {said.getvalue() or error}"


def _parse_ray(words: list[str]) -> None:
    command: click.Command = ray_cli
    while isinstance(command, click.Group):
        name, *words = words
        found = command.commands.get(name)
        if found is None:
            raise click.UsageError(f"ray has no command {name}")
        command = found
    command.make_context(command.name, list(words))


def variable_problems(rendered: Rendered) -> Iterator[str]:
    """Variables that a command uses and none defines, or that are defined and nobody knows."""
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "configuration.md").read_text()))
    head = rendered.ray_pods()[0].spec["containers"][0]
    used_anywhere: set[str] = set()
    for pod in rendered.pods():
        for container in pod.containers:
            text = json.dumps([container.get(part) for part in ("command", "args", "lifecycle")])
            text += rendered.template["spec"]["entrypoint"] if container is head else ""
            used = {name for found in VALUE.findall(text) for name in found if name}
            used_anywhere |= used
            given = GIVEN_BY_KUBERAY if pod.group else set()
            for name in used - rendered.environment(container).keys() - given:
                yield f"{pod.name}/{container['name']}: {name} is used and not defined"
            for entry in container.get("env", []):
                name = entry["name"]
                if name not in used | documented | OF_EVERY_PROGRAM and not _known_to_ray(name):
                    yield f"{pod.name}/{container['name']}: nobody knows {name}"
    values = rendered.named("ConfigMap", "ffaa-nightly") or {"data": {}}
    for name in values["data"].keys() - used_anywhere - documented:
        yield f"values.yaml: nobody knows {name}"


def _known_to_ray(name: str) -> bool:
    return name.startswith("RAY_") and any(
        name in inspect.getsource(module) for module in (job_supervisor, ray_constants)
    )


def setting_problems(rendered: Rendered) -> Iterator[str]:
    """Values that are missing, settings that do not exist, a size that is stated twice and differs."""
    values = (rendered.named("ConfigMap", "ffaa-nightly") or {"data": {}})["data"]
    yield from (f"values.yaml: {name} is empty" for name, value in values.items() if not value)
    if not re.fullmatch("[0-9a-f]{64}", values.get("FFAA_BUNDLE_SHA256", "")):
        yield "values.yaml: FFAA_BUNDLE_SHA256 is no sha256"
    head = rendered.ray_pods()[0].spec
    given = next(v["configMap"]["name"] for v in head["volumes"] if v["name"] == "score")
    folder = next(m["mountPath"] for m in head["containers"][0]["volumeMounts"] if m["name"] == "score")
    words = entrypoint(rendered, rendered.template)
    path = PurePosixPath(words[words.index("--config") + 1])
    text = (rendered.named("ConfigMap", given) or {"data": {}})["data"].get(path.name)
    if str(path.parent) != folder or text is None:
        yield f"the head has no {path}"
        return
    try:
        config = from_mapping(ScoreConfig, yaml.safe_load(text))
    except ConfigurationError as error:
        yield f"{path.name}: {error}"
        return
    engine = rendered.groups["engine"]["template"]["spec"]["containers"][0]
    gpus = int(values["ENGINE_WORKERS"]) * int(engine["resources"]["limits"].get("nvidia.com/gpu", 0))
    if config.run.gpus != gpus:
        yield f"run.gpus is {config.run.gpus}, but ENGINE_WORKERS have {gpus}"


def version_problems(rendered: Rendered) -> Iterator[str]:
    """Another Ray than the pinned one, other settings of Ray than documented, images without a version."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = next(name.partition("==")[2] for name in dependencies if name.startswith("ray["))
    settings = {name.removeprefix("RAY_"): int(value) for name, value in RAY_SETTINGS.items()}
    for cluster in rendered.clusters.values():
        if not cluster["rayVersion"] == pinned == ray.__version__:
            yield f"rayVersion is not {pinned}, or not the installed {ray.__version__}"
        [system_config] = shlex.split(cluster["headGroupSpec"]["rayStartParams"]["system-config"])
        if json.loads(system_config) != settings:
            yield f"system-config is not {settings}"
    images = {container["image"] for pod in rendered.own_pods() for container in pod.containers}
    names = {image.rpartition(":")[0] for image in images}
    tags = {image.rpartition(":")[2].partition("-")[0] for image in images}
    if len(names) != 1 or len(tags) != 1 or tags & {"", "latest"}:
        yield f"not one image of one version: {', '.join(sorted(images))}"
    for pod in rendered.pods():
        for container in pod.containers:
            if not re.fullmatch(r".+:\d+\.\d+\.\d+\S*", container["image"]):
                yield f"{pod.name}: {container['image']} is of no version"


def reference_problems(rendered: Rendered) -> Iterator[str]:
    """Names that name nothing, and selectors that select nothing."""
    there = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in rendered.manifests}
    there.add(("ConfigMap", "kube-root-ca.crt"))  # Kubernetes puts it into every namespace
    made_by_hand = re.findall(r"create secret generic (\S+)", (ROOT / "docs" / "operations.md").read_text())
    there |= {("Secret", name) for name in made_by_hand}
    for owner, kind, name in _references(rendered):
        if (kind, name) not in there:
            yield f"{owner}: there is no {kind} {name}"
    for owner, selector in _selectors(rendered):
        if selector and not selected(selector, rendered.pods()):
            yield f"{owner}: no pod is selected"


def _references(rendered: Rendered) -> Iterator[tuple[str, str, str]]:
    for pod in rendered.pods():
        if pod.own:
            yield pod.name, "ServiceAccount", pod.spec["serviceAccountName"]
        if "priorityClassName" in pod.spec:
            yield pod.name, "PriorityClass", pod.spec["priorityClassName"]
        yield from ((pod.name, kind, name) for kind, name in _whole(pod))
        yield from ((pod.name, kind, name) for kind, name in _keys(pod.containers))
    redis = rendered.clusters["service"]["gcsFaultToleranceOptions"]["redisPassword"]
    yield from (("redisPassword", kind, name) for kind, name in _keys([{"env": [redis]}]))
    for binding in rendered.of_kind("RoleBinding"):
        yield "RoleBinding", binding["roleRef"]["kind"], binding["roleRef"]["name"]
        yield from (("RoleBinding", subject["kind"], subject["name"]) for subject in binding["subjects"])
    template = rendered.nightly.containers[0]["args"][2]
    yield "CronJob", "RayJob", template


def _keys(containers: list[Manifest]) -> Iterator[tuple[str, str]]:
    """Kind and name of what single variables are taken from."""
    for container in containers:
        for entry in container.get("env", []):
            source = entry.get("valueFrom", {})
            for kind, reference in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                if reference in source:
                    yield kind, source[reference]["name"]


def _whole(pod: Pod) -> Iterator[tuple[str, str]]:
    """Kind and name of what is taken as a whole, for variables or as a volume."""
    for container in pod.containers:
        for source in container.get("envFrom", []):
            yield from named_in(source)
    for volume in pod.spec.get("volumes", []):
        sources = [volume, *volume.get("projected", {}).get("sources", [])]
        yield from (("ConfigMap", source["configMap"]["name"]) for source in sources if "configMap" in source)


def _selectors(rendered: Rendered) -> Iterator[tuple[str, Manifest]]:
    for policy in rendered.of_kind("NetworkPolicy"):
        yield f"NetworkPolicy {policy['metadata']['name']}", policy["spec"]["podSelector"]
    for budget in rendered.of_kind("PodDisruptionBudget"):
        yield f"PodDisruptionBudget {budget['metadata']['name']}", budget["spec"]["selector"]
    for service in rendered.of_kind("Service"):
        yield f"Service {service['metadata']['name']}", {"matchLabels": service["spec"]["selector"]}
    for pod in rendered.pods():
        for constraint in pod.spec.get("topologySpreadConstraints", []):
            yield f"{pod.name}: topology", constraint["labelSelector"]
        affinity = pod.spec.get("affinity", {}).get("podAntiAffinity", {})
        for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution", []):
            yield f"{pod.name}: affinity", term["labelSelector"]
