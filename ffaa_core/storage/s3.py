"""A prefix of an S3 bucket as a store, on AWS or whatever else keeps `If-None-Match` on PutObject.

Endpoint, region and credentials come from the AWS environment or the platform's identity, never from an
argument.
"""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ReadTimeoutError,
)
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from ffaa_core.ahead import WORKERS, ahead
from ffaa_core.errors import AlreadyExistsError, ConfigurationError, FFAAError, NotFoundError, StorageError
from ffaa_core.storage.base import Content, ObjectInfo, Store
from ffaa_core.storage.patience import TIMEOUT, TIMEOUT_S, Patience, seconds

T = TypeVar("T")

CONNECT_S = 2.5
"""How long a connection may take to be made, unless the time-out of requests is shorter.

On a new one, urllib3 also allows no more for each piece that is sent.
"""
PIECES_FROM = 1 << 20
"""Bytes from which on an object is sent in pieces."""
PAGE = 1000
"""Objects asked for in one request of a listing."""

NOT_FOUND = {"404", "NoSuchKey", "NotFound"}
PRECONDITION = {"412", "PreconditionFailed"}
FORBIDDEN = {"403", "AccessDenied"}
TRY_AGAIN = {"IDPCommunicationError", "RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"}
"""Of S3, and of the service that gives a workload its credentials (STS)."""
TRY_AGAIN_STATUSES = {409, 429, 500, 502, 503, 504}
INCONCLUSIVE = (
    CredentialRetrievalError,  # what gives them does not answer just now
    HTTPClientError,
    HTTPError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoConnectionError,
    ResponseParserError,
)
MISCONFIGURED = {
    "NoSuchBucket": "the bucket does not exist at this endpoint",
    "InvalidAccessKeyId": "the access key is not known to this endpoint",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "InvalidBucketName": "this is no name of a bucket",
    "PermanentRedirect": "the bucket lies in another region: set AWS_REGION",
    "ExpiredToken": "the credentials have expired",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "EntityTooLarge": "it is larger than one request may be: ask for smaller shards (run.shard_size)",
}


class S3Store(Store):
    """The objects of `bucket` whose keys begin with `prefix`, which is empty or ends in `/`.

    Versions are ETags: listings and reads both tell them, so that one can be compared with the other.
    """

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self._bucket, self._prefix = bucket, prefix
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")

    def __reduce__(self) -> tuple[type["S3Store"], tuple[str, str]]:
        return S3Store, (self._bucket, self._prefix)

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    def uri_of(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for page in self._pages(prefix):
            for entry in page.get("Contents", ()):
                key = entry["Key"][len(self._prefix) :]
                yield ObjectInfo(uri=self.uri_of(key), key=key, size=entry["Size"], version=_version(entry))

    def folders(self, prefix: str) -> Iterator[str]:
        for page in self._pages(prefix, Delimiter="/"):
            for entry in page.get("CommonPrefixes", ()):
                yield entry["Prefix"][len(self._prefix + prefix) : -1]

    def stat(self, key: str) -> ObjectInfo:
        def head(client: Any) -> ObjectInfo:
            answer = client.head_object(**self._place(key))
            return ObjectInfo(
                uri=self.uri_of(key), key=key, size=answer["ContentLength"], version=_version(answer)
            )

        return self._try("find", key, head)

    def read(self, key: str, *, limit: int | None = None) -> Content:
        def get(client: Any) -> Content:
            answer = client.get_object(**self._place(key))
            size = answer["ContentLength"]
            data = _body(answer, size if limit is None else min(limit, size))
            return Content(data=data, version=_version(answer), size=size)

        return self._try("read", key, get)

    def read_range(self, key: str, start: int, length: int, version: str) -> bytes:
        """`length` bytes from `start` of the object, which must still have `version`."""

        def get(client: Any) -> bytes:
            answer = client.get_object(
                **self._place(key), Range=f"bytes={start}-{start + length - 1}", IfMatch=f'"{version}"'
            )
            return _body(answer, length)

        return self._try("read", key, get)

    def open(self, key: str) -> io.BufferedReader:
        info = self.stat(key)
        return _BlockReader(_RangeReader(self, info), buffer_size=1 << 20)

    def create(self, key: str, data: bytes) -> None:
        self._try(
            "create",
            key,
            lambda client: client.put_object(**self._place(key), Body=_to_send(data), IfNoneMatch="*"),
        )

    def write(self, key: str, data: bytes | Path) -> None:
        def put(client: Any) -> None:
            if isinstance(data, Path):
                with data.open("rb") as file:
                    client.put_object(**self._place(key), Body=file)
            else:
                client.put_object(**self._place(key), Body=_to_send(data))

        self._try("write", key, put)

    def delete(self, key: str) -> None:
        with suppress(NotFoundError):
            self._try("delete", key, lambda client: client.delete_object(**self._place(key)))

    def read_many(self, keys: Iterable[str]) -> Iterator[bytes]:
        yield from ahead(lambda key: self.read(key).data, keys)

    def create_missing(self, objects: Iterable[tuple[str, bytes]]) -> None:
        one_by_one = super().create_missing
        for _ in ahead(lambda each: one_by_one([each]), objects):
            pass

    @cached_property
    def _client(self) -> Any:
        # Servers other than AWS often know no CRC trailers. The table keeps digests of its own.
        checksums = {
            name: os.environ.get(f"AWS_{name}".upper(), "when_required").lower()
            for name in ("request_checksum_calculation", "response_checksum_validation")
        }
        timeout = seconds(TIMEOUT, TIMEOUT_S)
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 1},  # `_try` does it
            connect_timeout=min(CONNECT_S, timeout),
            read_timeout=timeout,
            max_pool_connections=WORKERS,
            **checksums,  # type: ignore[arg-type]
        )
        try:
            return boto3.session.Session().client("s3", config=config)
        except INCONCLUSIVE:
            raise
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"cannot use {self.uri}: {error}") from error

    def _place(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        where = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        request: dict[str, Any] = {**where, "MaxKeys": PAGE, **options}
        while True:
            page = self._try("list", prefix, lambda client: client.list_objects_v2(**request))
            yield page
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _try(self, verb: str, key: str, call: Callable[[Any], T]) -> T:
        """Call, again after an outcome that says nothing; other failures become FFAA errors."""
        patience = Patience()
        while True:
            try:
                answer = call(self._client)
            except RecursionError as error:
                raise ConfigurationError(
                    f"cannot {verb} {self.uri_of(key)}: the endpoint redirects every request: is it an S3 "
                    "server, and is AWS_REGION its region?"
                ) from error
            except (BotoCoreError, ClientError, HTTPError, ResponseParserError) as error:
                _raise_ours(error)
                failure = self._failure(verb, key, error)
                if not _inconclusive(error):
                    patience.answered()
                    raise failure from error
                if not patience.wait(str(failure)):
                    raise failure from error
            else:
                patience.answered()
                return answer

    def _failure(self, verb: str, key: str, error: Exception) -> FFAAError:
        uri, code = self.uri_of(key), _code(error)
        if code in PRECONDITION and verb == "create":
            return AlreadyExistsError(f"{uri} exists already")
        if code in PRECONDITION and verb == "read":
            return StorageError(f"{uri} changed while it was being read; read it again")
        if code in NOT_FOUND:
            return NotFoundError(f"{uri} does not exist")
        if code in MISCONFIGURED:
            return ConfigurationError(f"cannot {verb} {uri}: {MISCONFIGURED[code]} ({code})")
        if code in FORBIDDEN:
            return ConfigurationError(f"cannot {verb} {uri}: the credentials do not allow it ({code})")
        if isinstance(error, NoCredentialsError | PartialCredentialsError | NoRegionError):
            return ConfigurationError(f"cannot {verb} {uri}: {error} (set the usual AWS_... variables)")
        if isinstance(error, ClientError):
            said = error.response["Error"].get("Message") or "no reason was given"
            return StorageError(f"cannot {verb} {uri}: {said} ({code or 'no code'})")
        if isinstance(error, ReadTimeoutError):  # botocore does not always know of which address
            return StorageError(f"cannot {verb} {uri}: nothing came for {seconds(TIMEOUT, TIMEOUT_S):g} s")
        return StorageError(f"cannot {verb} {uri}: {error}")


class _RangeReader(io.RawIOBase):
    """Reads of one object's one version by ranged requests."""

    def __init__(self, store: S3Store, info: ObjectInfo) -> None:
        self._store, self._info, self._position = store, info, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._info.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._info.size - self._position)
        if length <= 0:
            return 0
        data = self._store.read_range(self._info.key, self._position, length, self._info.version)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class _BlockReader(io.BufferedReader):
    """Asks for a whole buffer whatever is read; `read1`, by which text is read, would ask for 8 KiB."""

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(size)


def _to_send(data: bytes) -> bytes | io.BytesIO:
    """A file is sent in pieces, which costs a round trip; bytes go at once."""
    return data if len(data) < PIECES_FROM else io.BytesIO(data)


def _body(answer: dict[str, Any], length: int) -> bytes:
    """The first `length` bytes of an answer; a connection that ended before is an error, not a short object.

    `closing`, since a `with` block on botocore's body gives the stream below it, which checks nothing.
    """
    with closing(answer["Body"]) as body:
        data = bytes(body.read(length))
    if len(data) < length:
        raise IncompleteReadError(actual_bytes=len(data), expected_bytes=length)
    return data


def _version(answer: dict[str, Any]) -> str:
    """The ETag in an answer.

    Raises:
        ResponseParserError: it has none, so that it is hardly from S3.
    """
    if "ETag" not in answer:
        raise ResponseParserError("the answer has no ETag: is this the endpoint of an S3 server?")
    return str(answer["ETag"]).strip('"')


def _raise_ours(error: Exception) -> None:
    """Raise what a signal's handler raised amid a request; botocore takes it for a failure of the request."""
    hidden = error.kwargs.get("error") if isinstance(error, HTTPClientError) else None
    if isinstance(hidden, FFAAError):
        raise hidden


def _code(error: Exception) -> str:
    return str(error.response["Error"].get("Code", "")) if isinstance(error, ClientError) else ""


def _inconclusive(error: Exception) -> bool:
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status in TRY_AGAIN_STATUSES or _code(error) in TRY_AGAIN
    return isinstance(error, INCONCLUSIVE)
