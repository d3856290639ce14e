"""Which bundle a command uses: the one asked for, or the demo bundle in the user's cache."""

import hashlib
import os
import sys
from pathlib import Path

from ffaa_core.bundle.bundle import Bundle, Manifest
from ffaa_core.bundle.cache import cache_directory, made_once

VARIABLE = "FFAA_BUNDLE"
PIN = "FFAA_BUNDLE_SHA256"
"""The sha256 that the bundle.json of the bundle which `VARIABLE` names must have."""


def resolve_bundle(option: str | None) -> Bundle:
    """Open what `--bundle` says, else what FFAA_BUNDLE says, else the demo bundle, made once, with a warning.

    Raises:
        BundleError: the bundle asked for is not there or not complete, or FFAA_BUNDLE's is another than that
            of FFAA_BUNDLE_SHA256.
        StorageError: it lies elsewhere and could not be fetched.
    """
    location, sha256 = _asked_for(option)
    if location:
        return Bundle.open(location, sha256)
    bundle = Bundle.open(made_once(cache_directory() / f"demo-{_recipe()}", _make_demo))
    print(
        f"ffaa: neither --bundle nor {VARIABLE} is given: using {bundle.path}. WARNING: {bundle.warning}",
        file=sys.stderr,
    )
    return bundle


def resolve_manifest(option: str | None) -> tuple[str, Manifest]:
    """Location and manifest of what `resolve_bundle` opens; of a bundle with a URL nothing else is read.

    Raises:
        BundleError: as `resolve_bundle`; that a bundle with a URL is not complete is not noticed.
        StorageError: it lies elsewhere and could not be read.
    """
    location, sha256 = _asked_for(option)
    if location and "://" in location.removeprefix("file://"):
        from ffaa_core.bundle.fetch import fetch_manifest

        return location, fetch_manifest(location, sha256)
    bundle = resolve_bundle(option)
    return bundle.location, bundle.manifest


def _asked_for(option: str | None) -> tuple[str | None, str | None]:
    """Location of the bundle that is asked for, and the sha256 that its bundle.json must have; None: any."""
    if option:
        return option, None
    return os.environ.get(VARIABLE), os.environ.get(PIN) or None


def _make_demo(directory: Path) -> None:
    from ffaa_core.bundle.demo import write_demo_bundle

    print("ffaa: making the demo bundle; this takes seconds and happens once", file=sys.stderr)
    write_demo_bundle(directory)


def _recipe() -> str:
    """Changes whenever the code that makes the demo bundle does, so that a new version makes its own."""
    package = Path(__file__).parents[1]
    patterns = ("bundle/demo*.py", "convert/*tokenizer.py", "mids/*.py")
    sources = [source for pattern in patterns for source in sorted(package.glob(pattern))]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
