"""Running Terraform on the module, with no network: its provider comes from a mirror."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MODULE = Path(__file__).parents[2] / "infra" / "terraform"
MIRROR = "FFAA_TERRAFORM_PROVIDERS"
"""Names a folder that `terraform providers mirror` has made."""


def mirror() -> Path | None:
    """The named mirror, or one below /opt."""
    if named := os.environ.get(MIRROR):
        return Path(named)
    found = sorted(Path("/opt").glob("*/registry.*/hashicorp/aws"))
    return found[0].parents[2] if found else None


def require_terraform() -> Path:
    """The mirror; the test is skipped where it or Terraform is absent."""
    providers = mirror()
    if shutil.which("terraform") is None:
        pytest.skip("there is no terraform")
    if providers is None:
        pytest.skip(f"there is no mirror of Terraform's AWS provider: name one in ${MIRROR}")
    return providers


@dataclass(frozen=True)
class Terraform:
    """`terraform` in a folder, with variables in its environment."""

    folder: Path
    environment: dict[str, str]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["terraform", f"-chdir={self.folder}", *arguments],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def outputs(self) -> dict[str, Any]:
        """The outputs of what was applied."""
        return {name: told["value"] for name, told in json.loads(self.run("output", "-json").stdout).items()}


def initialised(folder: Path, providers: Path, **environment: str) -> Terraform:
    """Terraform in a folder that has a configuration."""
    settings = folder / "cli.tfrc"
    settings.write_text(f'provider_installation {{ filesystem_mirror {{ path = "{providers}" }} }}\n')
    terraform = Terraform(
        folder,
        {
            "TF_CLI_CONFIG_FILE": str(settings),
            "CHECKPOINT_DISABLE": "1",
            "TF_IN_AUTOMATION": "1",
            **environment,
        },
    )
    terraform.run("init", "-input=false", "-no-color")
    return terraform
