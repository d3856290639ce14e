"""What the project needs to run under a profile, one requirement a line: requirements.py FILE PROFILE."""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, profile: str) -> list[str]:
    """The dependencies, and those of one extra."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"][profile]]


if __name__ == "__main__":
    print(*requirements(Path(sys.argv[1]), sys.argv[2]), sep="\n")
