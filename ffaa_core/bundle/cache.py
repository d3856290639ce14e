"""Folders made once in the user's cache, whoever asks first and however many ask at once."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from ffaa_core.errors import ConfigurationError


def cache_directory() -> Path:
    """The folder for what this project keeps for a user: `ffaa` in XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ffaa"


def made_once(directory: Path, make: Callable[[Path], object]) -> Path:
    """Return `directory`, filled by `make` if it does not exist yet.

    `make` gets a scratch folder beside it, which takes its name in one rename, so nobody ever sees half of
    it. Others wait meanwhile; a maker that dies lets go of the lock, and the next one starts afresh.

    Raises:
        ConfigurationError: the cache cannot be written.
    """
    if directory.exists():
        return directory
    scratch = directory.with_name(f"{directory.name}.part")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{directory}.lock"):
            if not directory.exists():
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir()
                make(scratch)
                scratch.rename(directory)
    except OSError as error:
        raise ConfigurationError(
            f"the cache in {directory.parent} cannot be written: {error}. "
            "Set XDG_CACHE_HOME to a folder that can"
        ) from error
    return directory
