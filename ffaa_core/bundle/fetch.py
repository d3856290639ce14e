"""Bundles that lie on S3, fetched once into the user's cache."""

import shutil
from pathlib import Path

from ffaa_core.bundle.bundle import MANIFEST, Bundle, Manifest, require_sha256
from ffaa_core.bundle.cache import cache_directory, made_once
from ffaa_core.errors import BundleError, NotFoundError
from ffaa_core.storage import Store, open_store

CHUNK = 64 * 2**20
"""Bytes of a file held in memory at once; one request each."""


def fetch(uri: str, sha256: str | None = None) -> Path:
    """The local copy of the bundle at `uri`, verified when it was fetched.

    Copies are kept by the content of bundle.json, so a bundle replaced under its URL is fetched again.

    Args:
        sha256: of its bundle.json, which states the digests of everything else; None takes any bundle.

    Raises:
        BundleError: there is no bundle at `uri`, it is another than `sha256`, or what was fetched is not what
            its digests say.
        ConfigurationError: the URL is of another kind, or bucket or credentials are wrong.
        StorageError: the storage failed.
    """
    store = open_store(uri)
    try:
        content, manifest = _read_manifest(store)
        found = require_sha256(content, sha256, store.uri_of(MANIFEST))
        copy = cache_directory() / "bundles" / found[:32]
        return made_once(copy, lambda scratch: _download(store, manifest, content, scratch))
    except NotFoundError as error:
        raise BundleError(f"no complete bundle at {uri}: {error}") from error


def fetch_manifest(uri: str, sha256: str | None = None) -> Manifest:
    """What the bundle at `uri` says of itself; nothing else of it is read.

    Args:
        sha256: as of `fetch`.

    Raises:
        BundleError, ConfigurationError, StorageError: as `fetch`.
    """
    store = open_store(uri)
    try:
        content, manifest = _read_manifest(store)
    except NotFoundError as error:
        raise BundleError(f"no bundle at {uri}: {error}") from error
    require_sha256(content, sha256, store.uri_of(MANIFEST))
    return manifest


def _read_manifest(store: Store) -> tuple[bytes, Manifest]:
    content = store.read(MANIFEST).data
    return content, Manifest.parse(content, store.uri_of(MANIFEST))


def _download(store: Store, manifest: Manifest, content: bytes, directory: Path) -> None:
    for name in manifest.files():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with store.open(name) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, CHUNK)
    (directory / MANIFEST).write_bytes(content)
    try:
        Bundle.open(directory).verify()
    except BundleError as error:
        raise BundleError(f"the bundle at {store.uri} is not what its manifest says: {error}") from error
