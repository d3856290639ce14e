"""The model bundle: one directory or URL with every part that scoring needs, and digests of all of it."""

from ffaa_core.bundle.bundle import Bundle
from ffaa_core.bundle.resolve import resolve_bundle, resolve_manifest

__all__ = ["Bundle", "resolve_bundle", "resolve_manifest"]
