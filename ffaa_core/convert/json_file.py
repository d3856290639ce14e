"""A JSON object in a file, or an error that says which file it should have been in."""

import json
from pathlib import Path
from typing import Any

from ffaa_core.errors import BundleError

AGAIN = "Download or copy it again"
"""What to do about a damaged file, in the words that all errors about one have."""


def read_json(file: Path) -> dict[str, Any]:
    """The object in `file`.

    Raises:
        BundleError: there is no such file, or something else in it.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} cannot be read ({error}). {AGAIN}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{file} holds a {type(content).__name__} and not a JSON object. {AGAIN}")
    return content
