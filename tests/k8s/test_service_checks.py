"""What the service needs refuses a manifest that is broken where it looks.

Unbroken ones pass: test_overlays.py.
"""

from typing import Any

import pytest

from tests.k8s import services
from tests.k8s.breaking import (
    ENGINES,
    ENGINES_POD,
    GATEWAYS,
    GATEWAYS_POD,
    SERVICE_HEAD_POD,
    Build,
    Check,
    is_refused,
    told_of,
)

HOOK = "lifecycle.preStop.exec.command"
SERVICES: list[tuple[Check, str, str, Any, str]] = [
    (services.change_problems, "RayService", f"{GATEWAYS_POD}.containers.0.env", [], "no new cluster"),
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
        f"{ENGINES_POD}.containers.0.{HOOK}.4",
        "ray drain-node --deadline-remaining-seconds 600\nsleep 5",
        "engine: its hook does not drain the node, until it is taken",
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
        f"{GATEWAYS_POD}.containers.0.env",
        [],
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


@pytest.mark.parametrize(("check", "which", "path", "value", "told"), SERVICES)
def test_a_check_of_the_service_refuses(
    build: Build, check: Check, which: str, path: str, value: Any, told: str
) -> None:
    assert is_refused(build("gpu"), check, which, path, value, told)


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
    build: Build, check: Check, said: str, instead: str, told: str
) -> None:
    rendered = build("gpu")
    before = rendered.service["spec"]["serveConfigV2"]
    text = before.replace(said, instead)
    assert text != before
    rendered.service["spec"]["serveConfigV2"] = text
    rendered.service_values["data"]["SERVE_CONFIG"] = text
    assert told_of(check, rendered, told)
