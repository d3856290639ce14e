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
    """Override settings by options, named as for `read_config`; a value of None overrides nothing.

    Raises:
        ConfigurationError: what should be a section is none.
    """
    for name, value in options.items():
        if value is None:
            continue
        *sections, setting = name.split(".")
        of = config
        for part in sections:
            of = section(of, part)
        of[setting] = value


def section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The section of this name, which is made where there is none.

    Raises:
        ConfigurationError: it is no mapping.
    """
    found = config.get(name)
    if found is None:
        found = config[name] = {}
    if not isinstance(found, dict):
        raise ConfigurationError(f"{name} must be a mapping, not {type(found).__name__}")
    return found


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
        try:
            section(content, name)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from None
    return content
