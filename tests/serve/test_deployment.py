"""The service's configuration file, which is one of Ray Serve."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ffaa_core.errors import ConfigurationError
from serve.deployment import IMPORT_PATH, Deployment


def read(folder: Path, content: Any, **options: Any) -> Deployment:
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump(content))
    return Deployment.read(file, options, {})


def application(**more: Any) -> dict[str, Any]:
    return {"applications": [{"import_path": IMPORT_PATH} | more]}


def test_without_a_file_there_is_a_service_on_this_machine_only() -> None:
    deployment = Deployment.read(None, {"service.anonymous": True}, {"host": None, "port": 9000})
    assert deployment.address == ("127.0.0.1", 9000)
    assert deployment.schema.applications[0].import_path == IMPORT_PATH
    assert deployment.config.service.anonymous


def test_options_go_before_the_file(tmp_path: Path) -> None:
    content = application(args={"faces": {"mode": "published", "margin": 7}})
    config = read(tmp_path, content, **{"faces.mode": "detect", "faces.margin": None}).config
    assert (config.faces.mode, config.faces.margin) == ("detect", 7)


def test_a_section_may_be_empty(tmp_path: Path) -> None:
    content = application(args={"service": None}) | {"http_options": None}
    deployment = read(tmp_path, content, **{"service.anonymous": True})
    assert deployment.address[0] == "127.0.0.1"
    assert deployment.config.service.anonymous
    assert read(tmp_path, application(args=None)).config.bundle is None


def test_what_the_file_says_to_ray_serve_is_kept(tmp_path: Path) -> None:
    scaled = {"name": "Engine", "autoscaling_config": {"min_replicas": 1, "max_replicas": 4}}
    deployment = read(
        tmp_path, application(name="mine", deployments=[scaled]) | {"http_options": {"port": 81}}
    )
    assert deployment.name == "mine"
    assert deployment.address == ("127.0.0.1", 81)
    assert deployment.content["applications"][0]["deployments"] == [scaled]


@pytest.mark.parametrize("gateway", [[], [{"name": "Gateway", "num_replicas": 2}]])
def test_a_service_that_ends_is_the_same_but_for_its_gateways(tmp_path: Path, gateway: list[Any]) -> None:
    deployment = read(tmp_path, application(deployments=[{"name": "Engine", "num_replicas": 2}, *gateway]))
    before = yaml.safe_dump(deployment.content)
    draining = deployment.draining()
    engine, changed = draining.content["applications"][0]["deployments"]
    assert engine == {"name": "Engine", "num_replicas": 2}
    assert changed == {"name": "Gateway", "user_config": {"drain": True}} | (gateway[0] if gateway else {})
    assert yaml.safe_dump(deployment.content) == before


def test_two_stand_beside_each_other_at_routes_of_their_own(tmp_path: Path) -> None:
    old = read(tmp_path, application() | {"http_options": {"port": 81}})
    schema = old.placed("ffaa", None).beside(old.placed("ffaa-2", "/"))
    routes = {each.name: each.route_prefix for each in schema.applications}
    assert routes == {"ffaa": None, "ffaa-2": "/"}
    assert schema.http_options.port == 81
    assert old.application["route_prefix"] == "/"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({}, "applications"),
        ({"faces": {"mode": "detect"}}, "applications"),
        ({"applications": []}, "one entry"),
        ({"applications": [{"import_path": IMPORT_PATH}] * 2}, "one entry"),
        ({"applications": ["serve"]}, "one entry"),
        (application(args={"face": {}}), "there is no setting face"),
        (application(deployments=[{"name": "Engine", "num_replicas": -1}]), "num_replicas"),
        (application() | {"http_options": {"port": "here"}}, "port"),
        (application() | {"http_options": 80}, "http_options must be a mapping"),
        (application(args=["anonymous"]), "args must be a mapping"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        read(tmp_path, content)
