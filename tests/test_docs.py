"""What the documents say of settings and commands is so."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

from ffaa_core import cli
from ray_jobs.score.config import ScoreConfig
from ray_jobs.score.ray_settings import RAY_SETTINGS
from serve.config import ServiceSettings

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

SECTION = re.compile(r"^## (?:`(\w+)`)?", re.MULTILINE)
SETTING = re.compile(r"^\| `(\w+)` \| `(.*?)` \|", re.MULTILINE)
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED_COMMAND = re.compile(r"^(?:\S*/)?ffaa (.+)$", re.MULTILINE)
INLINE_COMMAND = re.compile(r"`ffaa ([^`]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def documented_settings() -> dict[str, Any]:
    """The tables of configuration.md, nested as the configuration file is."""
    top_level, *rest = SECTION.split((ROOT / "docs" / "configuration.md").read_text())
    settings = defaults(top_level)
    for section, text in zip(rest[::2], rest[1::2], strict=True):
        if section:
            settings[section] = defaults(text)
    return settings


def defaults(text: str) -> dict[str, Any]:
    return {name: yaml.safe_load(default) for name, default in SETTING.findall(text)}


def test_every_setting_is_documented_with_its_default() -> None:
    settings = asdict(ScoreConfig()) | {"service": asdict(ServiceSettings())}
    assert documented_settings() == json.loads(json.dumps(settings))


def test_the_settings_of_a_clusters_head_are_documented_as_they_are() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    (documented,) = re.findall(r"--system-config='(.*?)'", text, re.DOTALL)
    assert json.loads(documented) == dict(RAY_SETTINGS)


def command_lines() -> Iterator[Any]:
    """Every command line in a code block, and every command that a sentence names."""
    for document in DOCUMENTS:
        text = document.read_text()
        for block in FENCE.findall(text):
            for line in FENCED_COMMAND.findall(block.replace("\\\n", "")):
                yield pytest.param(line, id=f"{document.name}: {line}")
        for named in INLINE_COMMAND.findall(FENCE.sub("", text)):
            only_a_name = re.fullmatch(r"[a-z ]+", named)
            yield pytest.param(f"{named} --help" if only_a_name else named, id=f"{document.name}: {named}")


@pytest.mark.parametrize("line", list(command_lines()))
def test_every_command_in_the_documents_is_understood(line: str) -> None:
    arguments = shlex.split(line, comments=True)
    entries = {entry.name: entry for entry in entry_points(group="ffaa.commands")}
    parser = cli._parser(entries, arguments[0])
    try:
        parser.parse_args(arguments)
    except SystemExit as ended:
        code = ended.code  # 0 after --help
    else:
        code = 0
    assert code == 0, f"ffaa {line}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_to_files_that_are_there(document: Path) -> None:
    missing = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_python_in_the_documents_compiles(document: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL):
        compile(block, document.name, "exec")
