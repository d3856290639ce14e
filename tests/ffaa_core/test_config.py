"""A configuration file with options over it."""

from pathlib import Path

import pytest

from ffaa_core.config import read_config
from ffaa_core.errors import ConfigurationError


def write(folder: Path, text: str) -> Path:
    path = folder / "ffaa.yaml"
    path.write_text(text)
    return path


def test_options_go_before_the_file_and_unset_ones_leave_it(tmp_path: Path) -> None:
    path = write(tmp_path, "bundle: here\nfaces: {mode: published, margin: 10}\n")
    options = {"bundle": None, "faces.margin": 20, "faces.mode": None, "run.shard_size": 5}
    assert read_config(path, options) == {
        "bundle": "here",
        "faces": {"mode": "published", "margin": 20},
        "run": {"shard_size": 5},
    }


def test_without_a_file_there_are_the_options_only() -> None:
    assert read_config(None, {"faces.mode": "detect"}) == {"faces": {"mode": "detect"}}


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "faces:\n"])
def test_an_empty_file_or_section_sets_nothing(tmp_path: Path, text: str) -> None:
    config = read_config(write(tmp_path, text), {"faces.margin": 1})
    assert config == {"faces": {"margin": 1}}


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "faces: 3\n", "a: [\n", "\x00"])
def test_a_file_that_is_no_mapping_of_sections_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"ffaa\.yaml"):
        read_config(write(tmp_path, text), {})


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read the configuration file"):
        read_config(tmp_path / "none.yaml", {})
