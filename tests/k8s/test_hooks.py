"""What a worker of the service does before it ends: its hook as rendered, with a Ray that fails on demand."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.k8s.breaking import Build

RAY = """#!/bin/sh
echo "$1" >> {said}
case "$1" in
    drain-node) test "$({grep} -c drain-node {said})" -gt {failures} ;;
    health-check) {health} ;;
esac
"""
NO_REPLICAS = "#!/bin/sh\nexit 1\n"
"""In the place of grep, which would find those of others on this machine."""


@pytest.fixture(params=["gateway", "engine"])
def hook(request: pytest.FixtureRequest, build: Build) -> list[str]:
    pods = {pod.group: pod for pod in build("gpu").service_pods()}
    command: list[str] = pods[request.param].spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    return command


def said_of(hook: list[str], folder: Path, *, failures: int, health: str) -> list[str]:
    """What is asked of Ray, where draining fails so often, until the hook has ended well."""
    said = folder / "said"
    for name, text in {
        "ray": RAY.format(said=said, grep=shutil.which("grep"), failures=failures, health=health),
        "sleep": f"#!/bin/sh\necho sleep $1 >> {said}\n",
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "RAY_ADDRESS": "head:6379"}
    subprocess.run(hook, env=environment, check=True, timeout=60)
    return said.read_text().splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "grep").write_text(NO_REPLICAS)
    (tmp_path / "grep").chmod(0o755)
    return tmp_path


def test_a_node_is_drained_once_where_that_is_taken(hook: list[str], folder: Path) -> None:
    assert said_of(hook, folder, failures=0, health="true") == ["drain-node"]


def test_draining_is_tried_again_as_long_as_the_head_answers(hook: list[str], folder: Path) -> None:
    again = ["drain-node", "health-check", "sleep 5"]
    assert said_of(hook, folder, failures=2, health="true") == [*again, *again, "drain-node"]


def test_a_pod_whose_head_is_away_ends_at_once(hook: list[str], folder: Path) -> None:
    assert said_of(hook, folder, failures=1, health="false") == ["drain-node", "health-check"]
