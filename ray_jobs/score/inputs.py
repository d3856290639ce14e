"""Listing INPUT: a folder, a prefix, a glob, one image, or a manifest. Every listed object is an image."""

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from ffaa_core.errors import ConfigurationError, NotFoundError
from ffaa_core.storage import ObjectInfo, Store, locate
from ffaa_core.table import PlannedImage

if TYPE_CHECKING:
    import pyarrow as pa

GLOB = re.compile(r"[*?\[]")
MANIFEST_SUFFIXES = (".csv", ".parquet")


def list_images(uri: str, uri_column: str = "image_uri") -> Iterator[PlannedImage]:
    """The images INPUT names, with version and size where the listing tells them.

    An object of exactly this name is taken as such, also when it looks like a glob. On S3 a prefix is
    literal: `s3://bucket/up` lists `uploads/` too.

    Args:
        uri: `s3://bucket/...` or a local path.
        uri_column: the column of a manifest that holds the images' addresses.

    Raises:
        ConfigurationError: there is nothing under this name, or the manifest lacks the column.
    """
    store, key = locate(uri)
    exact = _stat(store, key)
    if exact and key.lower().endswith(MANIFEST_SUFFIXES):
        yield from _read_manifest(store, exact, uri_column)
    elif exact:
        yield _planned(exact)
    else:
        yield from _list(store, key, uri)


def absolute(uri: str) -> str:
    """The same name from any working directory."""
    store, key = locate(uri)
    return store.uri_of(key)


def require_apart(input_uri: str, output_uri: str) -> None:
    """Refuse an OUTPUT whose files a listing of INPUT would take for images, and an INPUT inside OUTPUT.

    Raises:
        ConfigurationError: one lies inside the other.
    """
    (input_store, input_key), (output_store, output_key) = locate(input_uri), locate(output_uri)
    output_folder = f"{output_key.strip('/')}/".lstrip("/")
    listed = _listed_prefix(input_key, literal=input_uri.startswith("s3://"))
    nested = output_folder.startswith(listed) or listed.startswith(output_folder)
    if input_store.uri == output_store.uri and nested:
        raise ConfigurationError(
            f"OUTPUT {output_uri} lies where INPUT {input_uri} is listed; give OUTPUT a place of its own, "
            "and end an S3 INPUT in a slash if it means a folder"
        )


def _listed_prefix(key: str, *, literal: bool) -> str:
    """What the keys of a listing begin with: the folder, on S3 the prefix, or all before a wildcard."""
    if found := GLOB.search(key):
        return key[: found.start()]
    return key if literal or not key else key.rstrip("/") + "/"


def _list(store: Store, key: str, uri: str) -> Iterator[PlannedImage]:
    from fsspec.utils import glob_translate

    pattern = re.compile(glob_translate(key)) if GLOB.search(key) else None
    found_any = False
    for listed in store.list(_listed_prefix(key, literal=uri.startswith("s3://"))):
        if pattern is None or pattern.fullmatch(listed.key):
            found_any = True
            yield _planned(listed)
    if not found_any:
        raise ConfigurationError(f"nothing to score: {_why_nothing(uri, pattern is not None)}")


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


def _read_manifest(store: Store, manifest: ObjectInfo, column: str) -> Iterator[PlannedImage]:
    row = 0
    with store.open(manifest.key) as file:
        for batch in _batches(file, manifest.uri, column):
            for address in batch.column(0).to_pylist():
                row += 1
                if not address:
                    raise ConfigurationError(f"{manifest.uri}: column {column!r} is empty in row {row}")
                yield PlannedImage(
                    image_uri=_resolve(address, manifest), planned_version=None, size_bytes=None
                )


def _batches(file: BinaryIO, uri: str, column: str) -> Iterator["pa.RecordBatch"]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if uri.lower().endswith(".parquet"):
            parquet = pyarrow.parquet.ParquetFile(file)
            names = parquet.schema_arrow.names
            batches = parquet.iter_batches(columns=[column] if column in names else None)
        else:
            convert = pyarrow.csv.ConvertOptions(column_types={column: pa.string()})
            batches = pyarrow.csv.open_csv(file, convert_options=convert)
            names = batches.schema.names
        if column not in names:
            raise ConfigurationError(
                f"{uri} has no column {column!r} but {', '.join(names)}; name the right one with --uri-column"
            )
        for batch in batches:
            yield batch.select([column])
    except pa.ArrowInvalid as error:
        raise ConfigurationError(f"cannot read the manifest {uri}: {error}") from error


def _resolve(address: str, manifest: ObjectInfo) -> str:
    """The address without a presigned query string; a relative path is relative to the manifest."""
    parts = urlsplit(address)
    if parts.scheme in ("http", "https"):
        return parts._replace(query="", fragment="").geturl()
    if parts.scheme in ("s3", "file") or address.startswith("/"):
        return address
    return f"{manifest.uri.rpartition('/')[0]}/{address}"
