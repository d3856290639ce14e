"""Bundles that lie elsewhere, fetched once into the user's cache. Any URL that fsspec opens will do."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ffaa_core.bundle.bundle import MANIFEST, Bundle, Manifest
from ffaa_core.bundle.cache import cache_directory, made_once
from ffaa_core.errors import BundleError, StorageError

T = TypeVar("T")


def fetch(uri: str) -> Path:
    """The local copy of the bundle at `uri`, verified when it was fetched.

    Copies are kept by the content of bundle.json, so a bundle replaced under its URL is fetched again.

    Raises:
        BundleError: there is no bundle at `uri`, what was fetched is not what its digests say, or the URL
            cannot be opened at all.
        StorageError: the storage failed.
    """
    import fsspec

    filesystem, root = _told(uri, lambda: fsspec.core.url_to_fs(uri.rstrip("/")))
    content = _told(uri, lambda: filesystem.cat_file(f"{root}/{MANIFEST}"))
    manifest = Manifest.parse(content, f"{uri}/{MANIFEST}")

    def download(scratch: Path) -> None:
        for name in manifest.files():
            target = scratch / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _told(uri, lambda name=name, target=target: filesystem.get_file(f"{root}/{name}", str(target)))  # type: ignore[misc]
        (scratch / MANIFEST).write_bytes(content)
        Bundle.open(scratch).verify()

    name = hashlib.sha256(content).hexdigest()[:32]
    return made_once(cache_directory() / "bundles" / name, download)


def _told(uri: str, action: Callable[[], T]) -> T:
    """Do `action`; storage back ends raise all manner of errors, which become one of ours."""
    try:
        return action()
    except FileNotFoundError as error:
        raise BundleError(f"no complete bundle at {uri}: {error} does not exist") from error
    except (ImportError, ValueError, PermissionError) as error:
        raise BundleError(f"the bundle at {uri} cannot be opened: {error}") from error
    except Exception as error:
        raise StorageError(f"the bundle at {uri} could not be fetched: {error}") from error
