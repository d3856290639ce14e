"""The Dockerfile holds together: what it copies and calls exists, and it is what was agreed of images."""

import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "infra" / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PROFILES = ("cpu", "gpu")

Instruction = tuple[str, str]


def stages() -> dict[str, list[Instruction]]:
    """Each stage's instructions, without those of the stage it is built on; `FROM` names that."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    found: dict[str, list[Instruction]] = {}
    for line in filter(None, joined.splitlines()):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            base, name = rest.split(" AS ")
            found[name] = [("FROM", base)]
        else:
            found[name].append((keyword, " ".join(rest.split())))
    return found


def copied() -> list[str]:
    """Every path that is copied from the repository."""
    return [
        source
        for instructions in stages().values()
        for keyword, rest in instructions
        if keyword == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]


def sent(path: str) -> bool:
    """Whether the builder is sent this path, which must be named in .dockerignore or lie below what is."""
    lines = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    assert lines[1] == "*"
    return any(path == name or path.startswith(f"{name}/") for name in allowed)


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_that_is_copied_exists_and_is_sent_to_the_builder() -> None:
    assert copied()
    assert [path for path in copied() if not (ROOT / path).exists() or not sent(path)] == []


def test_every_package_of_the_project_is_copied() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    for pattern in packages["include"]:
        assert any(fnmatchcase(path, pattern) for path in copied()), pattern


@pytest.mark.parametrize("profile", PROFILES)
def test_an_image_is_labelled_and_runs_as_nobody_special_under_an_init(profile: str) -> None:
    instructions = stages()[profile]
    assert ("USER", "1000:1000") in instructions
    assert ("ENTRYPOINT", '["tini", "--"]') in instructions
    [labels] = [rest for keyword, rest in instructions if keyword == "LABEL"]
    assert f'org.opencontainers.image.version="{PROJECT["version"]}"' in labels
    assert f'org.opencontainers.image.licenses="{PROJECT["license"]}"' in labels
    base = stages()["base"][0][1]
    assert f'org.opencontainers.image.base.name="docker.io/library/{base}"' in labels


def test_the_user_is_the_one_that_the_manifests_run_as() -> None:
    for manifest in ("scan.yaml", "nightly.yaml"):
        assert "runAsUser: 1000" in (ROOT / "k8s" / "base" / manifest).read_text()
    [users] = [rest for keyword, rest in stages()["base"] if keyword == "RUN"]
    assert "--uid 1000" in users


def test_the_base_is_pinned_to_a_python_that_the_project_supports() -> None:
    base = re.fullmatch(r"python:3\.(\d+)\.\d+-slim-\w+", stages()["base"][0][1])
    assert base
    assert int(base[1]) >= int(PROJECT["requires-python"].rpartition(".")[2])


@pytest.mark.parametrize("profile", PROFILES)
def test_an_image_has_what_is_needed_to_run_and_the_pinned_ray(profile: str) -> None:
    done = subprocess.run(
        [sys.executable, DOCKER / "requirements.py", ROOT / "pyproject.toml", profile],
        capture_output=True,
        text=True,
        check=True,
    )
    told = done.stdout.splitlines()
    assert told == PROJECT["dependencies"] + PROJECT["optional-dependencies"][profile]
    [ray] = [requirement for requirement in told if requirement.startswith("ray[")]
    pin = ray.partition("==")[2]
    assert f"ray=={pin}" in (ROOT / "infra" / f"constraints-{profile}.txt").read_text().splitlines()
    [template] = yaml.safe_load_all((ROOT / "k8s" / "base" / "scan.yaml").read_text())
    assert template["spec"]["rayClusterSpec"]["rayVersion"] == pin


@pytest.mark.slow
def test_what_is_sent_to_the_builder_is_enough_for_the_wheels(tmp_path: Path) -> None:
    context, wheels = tmp_path / "context", tmp_path / "wheels"
    for path in copied():
        (context / path).parent.mkdir(parents=True, exist_ok=True)
        source = ROOT / path
        if source.is_dir():
            shutil.copytree(source, context / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, context / path)
    [build] = [rest for keyword, rest in stages()["wheels"] if keyword == "RUN"]
    pip = build.replace("pip", f"{sys.executable} -m pip", 1).replace("/wheels", str(wheels))
    subprocess.run(pip, shell=True, cwd=context, check=True, capture_output=True, timeout=400)
    made = sorted(wheel.name.partition("-")[0] for wheel in wheels.glob("*.whl"))
    assert made == ["ffaa_batch", "ffaa_torchvision_hook"]
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", target, *wheels.glob("*.whl")]
    subprocess.run(install, check=True, capture_output=True, timeout=400)
    helped = subprocess.run(
        [sys.executable, target / "bin" / "ffaa", "--help"],
        env={"PYTHONPATH": str(target), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    commands = PROJECT["entry-points"]["ffaa.commands"]
    assert [name for name in commands if name not in helped.stdout] == []
