"""Reading a configuration file and laying the command line's options over it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ffaa_core.errors import ConfigurationError


def read_config(path: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a YAML file, overridden by options.

    Args: path: the file; None reads as an empty one. options: dotted setting names (`faces.mode`) to values;
        names without a dot are top-level settings, and a value of None leaves the file's in force.

    Raises:
        ConfigurationError: the file cannot be read, or is not a mapping of mappings.
    """
    config = _read_yaml(path) if path else {}
    lay_over(config, options)
    return config


def lay_over(config: dict[str, Any], options: Mapping[str, Any]) -> None:
    """Override settings by options, named as for `read_config`; a value of None overrides nothing."""
    for name, value in options.items():
        if value is None:
            continue
        *sections, setting = name.split(".")
        section = config
        for part in sections:
            section = section.setdefault(part, {})
        section[setting] = value


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"cannot read the configuration file {path}: {error}") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: expected settings by name, such as `faces: {{mode: published}}`")
    sections = {"decode", "faces", "answers", "engine", "run"}
    for name in sections & content.keys():
        if content[name] is None:
            content[name] = {}
        elif not isinstance(content[name], dict):
            raise ConfigurationError(f"{path}: {name} must be a mapping, not {type(content[name]).__name__}")
    return content
