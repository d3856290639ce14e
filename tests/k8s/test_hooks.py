"""What workers do before they end: their hooks as rendered, with a Ray that fails on demand."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.k8s.breaking import Build
from tests.k8s.manifests import Pod

RAY = """#!/bin/sh
echo "$1" >> {said}
case "$1" in
    drain-node) test "$({grep} -c drain-node {said})" -gt {failures} ;;
    health-check) test "$({grep} -c health-check {said})" -le {healthy} ;;
esac
"""
GREP = """#!/bin/sh
case "$2" in *aylet/raylet) exit {no_raylet} ;; esac
exit 1
"""
"""In the place of grep, which would find the processes of others on this machine: there are no replicas."""
ALWAYS = 1000


@pytest.fixture(params=["gateway", "engine"])
def hook(request: pytest.FixtureRequest, build: Build) -> list[str]:
    return hook_of(build("gpu").service_pods(), request.param)


@pytest.fixture(params=["crop", "engine"])
def scan_hook(request: pytest.FixtureRequest, build: Build) -> list[str]:
    return hook_of(build("gpu").ray_pods(), request.param)


def hook_of(pods: Sequence[Pod], group: str) -> list[str]:
    (pod,) = (pod for pod in pods if pod.group == group)
    command: list[str] = pod.spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    return command


def said_of(
    hook: list[str], folder: Path, *, failures: int = 0, healthy: int = ALWAYS, no_raylet: bool = False
) -> list[str]:
    """What is asked of Ray until the hook ends: so often draining fails, so often the head is healthy."""
    said = folder / "said"
    said.touch()
    for name, text in {
        "ray": RAY.format(said=said, grep=shutil.which("grep"), failures=failures, healthy=healthy),
        "sleep": f"#!/bin/sh\necho sleep $1 >> {said}\n",
        "grep": GREP.format(no_raylet=int(no_raylet)),
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "RAY_ADDRESS": "head:6379"}
    subprocess.run(hook, env=environment, check=True, timeout=60)
    return said.read_text().splitlines()


def test_a_node_is_drained_once_where_that_is_taken(hook: list[str], tmp_path: Path) -> None:
    assert said_of(hook, tmp_path) == ["drain-node"]


def test_draining_is_tried_again_as_long_as_the_head_answers(hook: list[str], tmp_path: Path) -> None:
    again = ["drain-node", "health-check", "sleep 5"]
    assert said_of(hook, tmp_path, failures=2) == [*again, *again, "drain-node"]


def test_a_pod_whose_head_is_away_ends_at_once(hook: list[str], tmp_path: Path) -> None:
    assert said_of(hook, tmp_path, failures=1, healthy=0) == ["drain-node", "health-check"]


def test_a_pod_in_which_ray_has_ended_ends_at_once(hook: list[str], tmp_path: Path) -> None:
    assert said_of(hook, tmp_path, failures=1, no_raylet=True) == ["drain-node"]


def test_a_pod_of_the_scan_stays_until_the_head_has_gone(scan_hook: list[str], tmp_path: Path) -> None:
    again = ["health-check", "sleep 10"]
    assert said_of(scan_hook, tmp_path, healthy=2) == [*again, *again, "health-check"]


def test_a_pod_of_the_scan_in_which_ray_has_ended_ends_at_once(scan_hook: list[str], tmp_path: Path) -> None:
    assert said_of(scan_hook, tmp_path, no_raylet=True) == []
