"""Validation against the schemas: Kubernetes' own, KubeRay's definitions, Ray's runtime environments."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from cel import evaluate

from tests.k8s.manifests import Manifest

KUBERNETES = "1.32"


def core_problems(manifest: Manifest) -> list[str]:
    """What Kubernetes' schema refuses, unknown fields included."""
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


class Definitions:
    """Custom resource definitions: their schemas, structural as the API server reads them, and CEL rules."""

    def __init__(self, folder: Path) -> None:
        self._schemas: dict[tuple[str, str], Manifest] = {}
        self._validators: dict[tuple[str, str], jsonschema.Draft202012Validator] = {}
        for file in sorted(folder.glob("*.yaml")):
            definition = yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
            for version in definition["versions"]:
                key = f"{definition['group']}/{version['name']}", definition["names"]["kind"]
                self._schemas[key] = version["schema"]["openAPIV3Schema"]

    def problems(self, manifest: Manifest) -> list[str]:
        """What the API server would refuse, unknown fields included as with --validate=strict."""
        key = manifest["apiVersion"], manifest["kind"]
        if key not in self._schemas:
            return [f"no definition of {key}"]
        schema = self._schemas[key]
        if key not in self._validators:
            self._validators[key] = jsonschema.Draft202012Validator(_closed(schema))
        errors = self._validators[key].iter_errors(manifest)
        return [f"{error.json_path}: {error.message}" for error in errors] + list(
            _broken_rules(schema, manifest)
        )


def _closed(schema: Manifest) -> Manifest:
    """The JSON schema that means what a structural schema does: only known fields, extensions translated."""
    kept = ("type", "enum", "format", "pattern", "required")
    kept += (
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
    )
    closed: Manifest = {word: schema[word] for word in kept if word in schema}
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("anyOf", None)
        closed["type"] = ["integer", "string"]
    if "items" in schema:
        closed["items"] = _closed(schema["items"])
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        closed["additionalProperties"] = _closed(values)
    elif "properties" in schema:
        closed["properties"] = {name: _closed(field) for name, field in schema["properties"].items()}
        closed["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if schema.get("nullable") and "type" in closed:
        closed["type"] = [closed["type"], "null"]
    return closed


def _broken_rules(schema: Manifest, value: Any, path: str = "$") -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", []):
        is_for_updates = "oldSelf" in rule["rule"]
        if not is_for_updates and not evaluate(rule["rule"], {"self": value}):
            yield f"{path}: {rule['message']}"
    if isinstance(value, dict):
        of_values = schema.get("additionalProperties")
        for name, inner in value.items():
            field = schema.get("properties", {}).get(name, of_values)
            if isinstance(field, dict):
                yield from _broken_rules(field, inner, f"{path}.{name}")
    elif isinstance(value, list) and "items" in schema:
        for index, inner in enumerate(value):
            yield from _broken_rules(schema["items"], inner, f"{path}[{index}]")


def runtime_environment_problems(rayjob: Manifest) -> list[str]:
    """What Ray refuses in `runtimeEnvYAML`."""
    from ray.runtime_env import RuntimeEnv

    environment = yaml.safe_load(rayjob["spec"].get("runtimeEnvYAML", "{}"))
    if unknown := set(environment) - RuntimeEnv.known_fields:
        return [f"runtimeEnvYAML: unknown {', '.join(sorted(unknown))}"]
    try:
        RuntimeEnv(**environment)
    except (TypeError, ValueError) as error:
        return [f"runtimeEnvYAML: {error}"]
    return []
