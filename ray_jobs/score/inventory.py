"""An S3 Inventory report as INPUT: the list of a bucket's objects that S3 itself writes, once a day or week.

The report's `manifest.json` names CSV or Parquet files, which are streamed. Its form is described under
"Cataloging and analyzing your data with S3 Inventory" in the Amazon S3 User Guide.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from ffaa_core.errors import ConfigurationError, NotFoundError
from ffaa_core.storage import ObjectInfo, Store, locate
from ffaa_core.table import PlannedImage

MANIFEST = "manifest.json"
CHECKSUM = "manifest.checksum"
"""What S3 writes last of a report."""
REPORT = re.compile(rf"/\d{{4}}-\d\d-\d\dT\d\d-\d\dZ/{re.escape(MANIFEST)}$")
"""How the name of a report's manifest ends: the time of the report, and then this."""
SYMLINK = re.compile(r"/hive/dt=\d{4}-\d\d-\d\d-\d\d-\d\d/symlink\.txt$")
"""What S3 writes for Hive beside the reports of an inventory, by which its folder is known."""


class DataFile(BaseModel):
    """One file of a report: its key in the destination bucket and its size in bytes."""

    key: str
    size: int


class Report(BaseModel):
    """A report's `manifest.json`. `file_schema` names the columns of a CSV file, in order."""

    model_config = ConfigDict(alias_generator=to_camel)

    source_bucket: str
    destination_bucket: str
    file_format: str
    file_schema: str
    files: list[DataFile]


class Entry(NamedTuple):
    """One version of an object as a report has it. Fields that the report was not configured for are None."""

    key: str
    size: int | None
    etag: str | None
    is_latest: bool | None
    is_delete_marker: bool | None


CSV_COLUMNS = ("Key", "Size", "ETag", "IsLatest", "IsDeleteMarker")
PARQUET_COLUMNS = ("key", "size", "e_tag", "is_latest", "is_delete_marker")


def read_inventory(store: Store, manifest: ObjectInfo) -> Iterator[PlannedImage]:
    """The objects of a report that exist: current versions only, no delete markers. Versions are ETags.

    Raises:
        ConfigurationError: the report is of a form that is not read, is damaged, or lists nothing.
    """
    report = _read_report(store, manifest)
    if report.file_format not in ("CSV", "Parquet"):
        raise ConfigurationError(
            f"{manifest.uri} is an S3 Inventory in {report.file_format}, which is not read: configure the "
            "inventory to be written as CSV or Parquet"
        )
    destination = report.destination_bucket.rpartition(":")[2]  # it is given as an ARN
    listed_any = False
    for file in report.files:
        uri = f"s3://{destination}/{file.key}"
        for entry in _entries(uri, file, report):
            if entry.is_latest is not False and not entry.is_delete_marker:
                listed_any = True
                yield PlannedImage(
                    image_uri=f"s3://{report.source_bucket}/{entry.key}",
                    planned_version=entry.etag.strip('"') if entry.etag else None,
                    size_bytes=entry.size,
                )
    if not listed_any:
        raise ConfigurationError(f"nothing to score: the S3 Inventory {manifest.uri} lists no object")


def newest_report(uri: str) -> str:
    """The manifest of the newest finished report, if `uri` is the folder of an inventory or its `hive/`.

    Any other URI is returned as it is. The folder has the inventory's own name, below that of the source
    bucket.

    Raises:
        ConfigurationError: no report in the folder is finished.
    """
    if not uri.startswith("s3://") or uri.lower().endswith((".json", ".csv", ".parquet")):
        return uri
    store, key = locate(uri)
    folder = key.rstrip("/").removesuffix("/hive")
    first = next(store.list(f"{folder}/hive/dt="), None)
    if first is None or not SYMLINK.search(first.key):
        return uri
    names = {info.key for info in store.list(f"{folder}/2")}  # years; nothing else there begins with a digit
    reports = filter(REPORT.search, names)
    finished = [report for report in reports if report.removesuffix(MANIFEST) + CHECKSUM in names]
    if not finished:
        raise ConfigurationError(
            f"nothing to score: {store.uri_of(folder)} is an S3 Inventory without a finished report; the "
            "first takes S3 up to two days"
        )
    return store.uri_of(max(finished))


def without_date(uri: str) -> str:
    """What all reports of one inventory are called alike: the folder of their dated folders.

    Any other URI is returned as it is.
    """
    return REPORT.sub("", uri)


def _read_report(store: Store, manifest: ObjectInfo) -> Report:
    try:
        return Report.model_validate_json(store.read(manifest.key).data)
    except ValidationError as error:
        problem = error.errors()[0]
        where = "".join(f"{part}: " for part in problem["loc"])
        raise ConfigurationError(
            f"{manifest.uri} is no manifest of an S3 Inventory: {where}{problem['msg']}. A list of addresses "
            "must be CSV or Parquet"
        ) from None


def _entries(uri: str, file: DataFile, report: Report) -> Iterator[Entry]:
    """The entries of one of a report's files."""
    import pyarrow as pa

    store, key = locate(uri)
    try:
        with store.open(key) as data:
            if data.seek(0, io.SEEK_END) != file.size:
                raise ConfigurationError(f"{uri} is not the {file.size:,} bytes that its manifest.json says")
            data.seek(0)
            if report.file_format == "Parquet":
                yield from _parquet_entries(data)
            elif key.endswith(".gz"):
                with gzip.open(data) as unpacked:
                    yield from _csv_entries(unpacked, report)
            else:
                yield from _csv_entries(data, report)
    except NotFoundError as error:
        raise ConfigurationError(f"{error}, but the S3 Inventory names it; take a newer one") from error
    except (pa.ArrowException, csv.Error, ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigurationError(f"cannot read the S3 Inventory file {uri}: {error}") from error


def _csv_entries(data: BinaryIO | gzip.GzipFile, report: Report) -> Iterator[Entry]:
    """Rows without a header; keys are URL-encoded, in these files only."""
    names = [name.strip() for name in report.file_schema.split(",")]
    if "Key" not in names:
        raise ValueError(f"fileSchema names no Key but {report.file_schema}")
    places = [names.index(name) if name in names else None for name in CSV_COLUMNS]
    for row in csv.reader(io.TextIOWrapper(data, "utf-8", newline=""), strict=True):
        if len(row) != len(names):
            raise ValueError(f"a row has {len(row)} fields, fileSchema names {len(names)}")
        key, size, etag, is_latest, is_delete_marker = (
            None if place is None else row[place] for place in places
        )
        yield Entry(
            key=unquote_plus(key or ""),
            size=int(size) if size else None,
            etag=etag,
            is_latest=_flag(is_latest),
            is_delete_marker=_flag(is_delete_marker),
        )


def _parquet_entries(data: BinaryIO) -> Iterator[Entry]:
    import pyarrow.parquet as pq

    from ffaa_core.parquet import read_batches

    there = set(pq.read_schema(data).names)
    columns = [name for name in PARQUET_COLUMNS if name in there]
    if "key" not in there:
        raise ValueError(f"it has no column key but {', '.join(sorted(there))}")
    for batch in read_batches(data, columns=columns):
        absent = [None] * len(batch)
        values = [batch[name].to_pylist() if name in there else absent for name in PARQUET_COLUMNS]
        yield from map(Entry._make, zip(*values, strict=True))


def _flag(text: str | None) -> bool | None:
    return None if not text else text.lower() == "true"
