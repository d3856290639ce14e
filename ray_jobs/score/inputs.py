"""Listing INPUT: a folder, prefix, glob, image, manifest or S3 Inventory. Every listed object is an image."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ffaa_core.errors import ConfigurationError, NotFoundError
from ffaa_core.storage import ObjectInfo, Store, locate, open_store
from ffaa_core.table import PlannedImage
from ray_jobs.score.inventory import MANIFEST, read_inventory, without_date
from ray_jobs.score.manifest import read_manifest

WILDCARD = re.compile(r"[*?\[]")
MANIFEST_SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What INPUT selects in a store: the keys that begin with `prefix`, if the rest matches `pattern`."""

    store: Store
    prefix: str
    pattern: re.Pattern[str] | None = None


def list_images(uri: str, uri_column: str = "image_uri") -> Iterator[PlannedImage]:
    """The images INPUT names, with version and size where the listing tells them.

    What exists under exactly this name is taken as such, also when it looks like a glob. On S3 a prefix is
    literal: `s3://bucket/up` lists `uploads/` too.

    Args:
        uri: `s3://bucket/...` or a local path.
        uri_column: the column of a manifest that holds the images' addresses.

    Raises:
        ConfigurationError: there is nothing under this name, or the manifest or inventory cannot be used.
    """
    store, key = locate(uri)
    exact = _stat(store, key)
    if exact and key.lower().endswith(MANIFEST_SUFFIXES):
        yield from read_manifest(store, exact, uri_column)
    elif exact and key.rpartition("/")[2] == MANIFEST:
        yield from read_inventory(store, exact)
    elif exact:
        yield _planned(exact)
    else:
        yield from _list(select(uri), uri)


def absolute(uri: str) -> str:
    """The same name from any working directory and, for an S3 Inventory, on any day."""
    store, key = locate(uri)
    return without_date(store.uri_of(key))


def outside(images: Iterable[PlannedImage], output_uri: str) -> Iterator[PlannedImage]:
    """The images that do not lie in OUTPUT: the inventory of a bucket also lists a table in it."""
    inside = f"{open_store(output_uri).uri}/"
    return (image for image in images if not image.image_uri.startswith(inside))


def require_apart(input_uri: str, output_uri: str) -> None:
    """Refuse an OUTPUT whose files a listing of INPUT would take for images, and an INPUT inside OUTPUT.

    Raises:
        ConfigurationError: one lies inside the other.
    """
    selected, (output_store, output_key) = select(input_uri), locate(output_uri)
    output_folder = f"{output_key.strip('/')}/".lstrip("/")
    nested = output_folder.startswith(selected.prefix) or selected.prefix.startswith(output_folder)
    if selected.store.uri == output_store.uri and nested:
        raise ConfigurationError(
            f"OUTPUT {output_uri} lies where INPUT {input_uri} is listed; give OUTPUT a place of its own, "
            "and end an S3 INPUT in a slash if it means a folder"
        )


def select(uri: str) -> Selection:
    """How INPUT is listed: as the folder or prefix it names or, if there is none, as a glob."""
    store, key = locate(uri)
    is_s3 = uri.startswith("s3://")
    wildcard = WILDCARD.search(uri)
    if wildcard is None or _has_any(store, key, is_s3=is_s3):
        return Selection(store=store, prefix=key if is_s3 or not key else key.rstrip("/") + "/")
    from fsspec.utils import glob_translate

    folder, slash, rest = uri[: wildcard.start()].rpartition("/")
    _, folder_key = locate(folder or slash or ".")
    return Selection(
        store=store,
        prefix=f"{folder_key.strip('/')}/".lstrip("/"),
        pattern=re.compile(glob_translate(rest + uri[wildcard.start() :])),
    )


def _has_any(store: Store, key: str, *, is_s3: bool) -> bool:
    if is_s3:
        return next(store.list(key), None) is not None
    return os.path.isdir(f"/{key}")


def _list(selected: Selection, uri: str) -> Iterator[PlannedImage]:
    found_any = False
    for listed in selected.store.list(selected.prefix):
        if selected.pattern is None or selected.pattern.fullmatch(listed.key.removeprefix(selected.prefix)):
            found_any = True
            yield _planned(listed)
    if not found_any:
        raise ConfigurationError(f"nothing to score: {_why_nothing(uri, selected.pattern is not None)}")


def _why_nothing(uri: str, is_glob: bool) -> str:
    if is_glob:
        return f"no object matches {uri}"
    if uri.startswith("s3://"):
        return f"no object's name begins with {uri}"
    return f"the folder {uri} holds no files" if os.path.isdir(uri) else f"{uri} does not exist"


def _stat(store: Store, key: str) -> ObjectInfo | None:
    if not key or key.endswith("/"):
        return None
    try:
        return store.stat(key)
    except NotFoundError:
        return None


def _planned(listed: ObjectInfo) -> PlannedImage:
    return PlannedImage(image_uri=listed.uri, planned_version=listed.version, size_bytes=listed.size)
