"""Objects under opaque keys, on local disk and S3, with one verb that decides races: create-only writing."""

import os
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from ffaa_core.errors import ConfigurationError
from ffaa_core.storage.base import Content, ObjectInfo, Store

__all__ = ["Content", "ObjectInfo", "Store", "locate", "open_store"]


def open_store(uri: str) -> Store:
    """The store whose root is a folder, `file://` folder or `s3://bucket/prefix`.

    A prefix is taken as a folder: keys are what follows it and a slash.

    Raises:
        ConfigurationError: the URI is of another kind.
    """
    bucket, key = _split(uri)
    if bucket is None:
        return _local(key)
    return _s3(bucket, key.rstrip("/") + "/" if key.strip("/") else "")


def locate(uri: str) -> tuple[Store, str]:
    """The store and the key of one object or prefix: the whole bucket or file system, and the raw key in it.

    `store.uri_of(key)` is `uri` again for every URI that a listing told.
    """
    bucket, key = _split(uri)
    if bucket is None:
        return _local("/"), key.removeprefix("/")
    return _s3(bucket, ""), key


def _split(uri: str) -> tuple[str | None, str]:
    """(bucket, key) of an S3 URI, or (None, absolute path)."""
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise ConfigurationError(f"{uri!r} names no bucket: write s3://bucket/prefix")
        return bucket, key
    if uri.startswith("file://"):
        return None, os.path.abspath(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))
    scheme, separator, _ = uri.partition("://")
    if separator and scheme.isalnum():
        raise ConfigurationError(
            f"{scheme}:// is not supported: give a local path or s3://bucket/prefix, not {uri!r}"
        )
    if not uri:
        raise ConfigurationError("an empty path was given: give a local path or s3://bucket/prefix")
    return None, os.path.abspath(uri)


@lru_cache(maxsize=64)
def _local(root: str) -> Store:
    from ffaa_core.storage.local import LocalStore

    return LocalStore(root)


@lru_cache(maxsize=64)
def _s3(bucket: str, prefix: str) -> Store:
    from ffaa_core.storage.s3 import S3Store

    return S3Store(bucket, prefix)
