"""Every overlay builds, is taken by Kubernetes, KubeRay and Ray, and agrees with the program."""

import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import yaml

from tests.k8s import consistency, nights, presence, security, services
from tests.k8s.manifests import OVERLAYS, ROOT, Rendered, render, selected
from tests.k8s.operator_rules import operator_problems, service_problems
from tests.k8s.schemas import Definitions, core_problems, runtime_environment_problems

CUSTOM = ("ray.io/", "kueue.x-k8s.io/")

CHECKS: list[Callable[[Rendered], Iterable[str]]] = [
    security.pod_security_problems,
    security.rights_problems,
    security.secret_problems,
    security.exposure_problems,
    consistency.command_problems,
    consistency.variable_problems,
    consistency.setting_problems,
    consistency.version_problems,
    consistency.reference_problems,
    nights.schedule_problems,
    nights.exit_code_problems,
    nights.grace_problems,
    nights.size_problems,
    nights.queue_problems,
    presence.deadline_problems,
    presence.bundle_problems,
    presence.storage_problems,
    presence.priority_problems,
    presence.spread_problems,
    presence.budget_problems,
    presence.egress_problems,
    services.configuration_problems,
    services.placement_problems,
    services.change_problems,
    services.ending_problems,
    services.door_problems,
]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_every_manifest(overlay: str, build: Callable[[str], Rendered]) -> None:
    core = [found for found in build(overlay).manifests if not found["apiVersion"].startswith(CUSTOM)]
    assert {found["kind"] for found in core} >= {"CronJob", "NetworkPolicy", "Role", "PriorityClass"}
    assert [problem for found in core for problem in core_problems(found)] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kuberay_takes_the_template_and_tonights_rayjob(
    overlay: str, build: Callable[[str], Rendered], definitions: Definitions
) -> None:
    rendered = build(overlay)
    for rayjob in (rendered.template, rendered.tonight):
        assert definitions.problems(rayjob) == []
        assert list(operator_problems(rayjob)) == []
        assert runtime_environment_problems(rayjob) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kuberay_takes_the_service(
    overlay: str, build: Callable[[str], Rendered], definitions: Definitions
) -> None:
    service = build(overlay).service
    assert definitions.problems(service) == []
    assert list(service_problems(service)) == []


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        ("FFAA_BUNDLE: s3://example-models/ffaa/2026-11", "FFAA_BUNDLE: s3://example-models/ffaa/2026-12"),
        ('FFAA_BUNDLE_SHA256: "0', 'FFAA_BUNDLE_SHA256: "1'),
        ("REDIS_ADDRESS: redis", "REDIS_ADDRESS: another"),
        ("uri_prefixes: [s3://example-uploads]", "uri_prefixes: []"),
        ("max_replicas: 4", "max_replicas: 5"),
    ],
)
def test_whatever_changes_of_the_service_is_another_cluster(
    said: str, instead: str, build: Callable[[str], Rendered], tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    values = tmp_path / "k8s" / "overlays" / "gpu" / "values.yaml"
    scan, service = values.read_text().split("# The service.")
    assert said in service
    values.write_text(f"{scan}# The service.{service.replace(said, instead)}")
    before, after = build("gpu"), render("gpu", tmp_path)
    assert after.clusters["service"] != before.clusters["service"]
    assert after.template == before.template


def test_the_policy_for_a_storage_in_the_cluster_is_taken_as_it_is_documented(
    build: Callable[[str], Rendered],
) -> None:
    policy = yaml.safe_load(documented()[0])
    rendered = build("gpu")
    rendered.manifests.append(policy)
    assert core_problems(policy) == []
    assert [problem for check in CHECKS for problem in check(rendered)] == []
    assert selected(policy["spec"]["podSelector"], rendered.pods()) == [
        *rendered.ray_pods(),
        *rendered.service_pods(),
    ]


def documented() -> list[str]:
    """The manifests, and parts of them, in operations.md."""
    document = (ROOT / "docs" / "operations.md").read_text()
    return re.findall(r"^```yaml\n(.*?)^```", document, re.M | re.S)


def test_a_larger_node_is_written_as_it_is_documented(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    operation = documented()[1]
    with (tmp_path / "k8s" / "overlays" / "gpu" / "gpus.yaml").open("a") as file:
        file.write(operation)
    engine = render("gpu", tmp_path).groups["engine"]
    (value,) = [each["value"] for each in yaml.safe_load(operation)]
    assert engine["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == value


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_overlay_has_none_of_the(
    check: Callable[[Rendered], Iterable[str]], overlay: str, build: Callable[[str], Rendered]
) -> None:
    assert list(check(build(overlay))) == []
