"""An S3 Inventory report as INPUT, in the form in which Amazon writes it."""

import csv
import gzip
import io
import json
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffaa_core.errors import ConfigurationError
from ffaa_core.storage import Store, open_store
from ffaa_core.table import PlannedImage
from ray_jobs.score.inputs import absolute, list_images, outside
from ray_jobs.score.inventory import newest_report
from tests.fixtures.s3 import S3Server, use

FOLDER = "reports/photos/nightly"
REPORT = f"{FOLDER}/2026-11-19T01-00Z/manifest.json"
BUCKET, KEY, VERSION, LATEST, DELETED, SIZE, DATE, ETAG = range(8)
CSV_SCHEMA = ["Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", "Size", "LastModifiedDate", "ETag"]
PARQUET_SCHEMA = pa.schema(
    [
        pa.field("bucket", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        ("version_id", pa.string()),
        ("is_latest", pa.bool_()),
        ("is_delete_marker", pa.bool_()),
        ("size", pa.int64()),
        ("last_modified_date", pa.timestamp("ms", "UTC")),
        ("e_tag", pa.string()),
    ]
)
WRITTEN = datetime(2026, 11, 18, tzinfo=UTC)

Row = tuple[Any, ...]
"""A version of an object in the columns of PARQUET_SCHEMA."""


def version(key: str, etag: str | None, size: int | None = 7, *, latest: bool = True) -> Row:
    return ("photos", key, f"id-{etag}", latest, etag is None, size, WRITTEN, etag)


ROWS = [
    version("a.jpg", "e1"),
    version("a.jpg", "e0", latest=False),
    version("gone.jpg", None, None),
    version("gone.jpg", "e2", latest=False),
    version("with space & plus+.jpg", "e3-2", 70_000_000),
    version("ü/100%41[1]*.jpg", "e4", 0),
]
PLANNED = [
    PlannedImage(image_uri="s3://photos/a.jpg", planned_version="e1", size_bytes=7),
    PlannedImage(
        image_uri="s3://photos/with space & plus+.jpg", planned_version="e3-2", size_bytes=70_000_000
    ),
    PlannedImage(image_uri="s3://photos/ü/100%41[1]*.jpg", planned_version="e4", size_bytes=0),
]


def csv_file(rows: Sequence[Row], columns: Sequence[int] = range(8)) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for row in rows:
        values = list(row)
        values[KEY] = quote_plus(row[KEY], safe="/")
        values[LATEST], values[DELETED] = str(row[LATEST]).lower(), str(row[DELETED]).lower()
        values[DATE] = "2026-11-18T00:00:00.000Z"
        writer.writerow(["" if values[i] is None else values[i] for i in columns])
    return text.getvalue().encode()


def parquet_file(rows: Sequence[Row], columns: Sequence[int] = range(8)) -> bytes:
    table = pa.Table.from_pylist([dict(zip(PARQUET_SCHEMA.names, row, strict=True)) for row in rows])
    sink = pa.BufferOutputStream()
    pq.write_table(table.cast(PARQUET_SCHEMA).select(list(columns)), sink)
    return bytes(sink.getvalue())


FORMATS: dict[str, tuple[str, Callable[..., bytes]]] = {
    ".csv.gz": ("CSV", lambda *args: gzip.compress(csv_file(*args))),
    ".csv": ("CSV", csv_file),
    ".parquet": ("Parquet", parquet_file),
}


@pytest.fixture
def bucket(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Where reports are written to."""
    use(moto_server, monkeypatch)
    return open_store(f"s3://{moto_server.fresh_bucket()}")


def report(bucket: Store, data_files: dict[str, bytes], **changed: Any) -> str:
    """Write a report of these data files and return the URI of its manifest."""
    for name, data in data_files.items():
        bucket.write(f"{FOLDER}/data/{name}", data)
    manifest = {
        "sourceBucket": "photos",
        "destinationBucket": bucket.uri.replace("s3://", "arn:aws:s3:::"),
        "version": "2016-11-30",
        "creationTimestamp": "1795050000000",
        "fileFormat": "CSV",
        "fileSchema": ", ".join(CSV_SCHEMA),
        "files": [
            {"key": f"{FOLDER}/data/{name}", "size": len(data), "MD5checksum": "0" * 32}
            for name, data in data_files.items()
        ],
    }
    bucket.write(REPORT, json.dumps(manifest | changed).encode())
    return bucket.uri_of(REPORT)


@pytest.mark.parametrize("suffix", FORMATS)
def test_current_versions_are_listed_with_etag_and_size_over_all_files(bucket: Store, suffix: str) -> None:
    file_format, write = FORMATS[suffix]
    files = {f"1{suffix}": write(ROWS[:3]), f"2{suffix}": write(ROWS[3:])}
    assert list(list_images(report(bucket, files, fileFormat=file_format))) == PLANNED


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_report_of_keys_alone_lists_no_versions(bucket: Store, suffix: str) -> None:
    file_format, write = FORMATS[suffix]
    files = {f"1{suffix}": write(ROWS[:1], (BUCKET, KEY))}
    uri = report(bucket, files, fileFormat=file_format, fileSchema="Bucket, Key")
    assert list(list_images(uri)) == [PlannedImage(image_uri="s3://photos/a.jpg")]


@pytest.mark.parametrize(
    ("files", "changed", "told"),
    [
        ({"1.orc": b"ORC"}, {"fileFormat": "ORC"}, "in ORC, which is not read: configure .* CSV or Parquet"),
        ({"1.csv": b'"photos","a.jpg"\n'}, {}, "a row has 2 fields, fileSchema names 8"),
        ({"1.csv.gz": gzip.compress(csv_file(ROWS))[:-9]}, {}, "cannot read .*1.csv.gz"),
        ({"1.csv.gz": csv_file(ROWS)}, {}, "cannot read .*1.csv.gz.*[Nn]ot a gzipped file"),
        ({"1.parquet": parquet_file(ROWS)[:-9]}, {"fileFormat": "Parquet"}, "cannot read .*1.parquet"),
        ({"1.csv": b'"photos"\n'}, {"fileSchema": "Bucket"}, "fileSchema names no Key but Bucket"),
        ({"1.csv": csv_file(ROWS[1:4])}, {}, "nothing to score: .* lists no object"),
        ({}, {}, "nothing to score: .* lists no object"),
        ({}, {"files": [{"key": "none.csv", "size": 1}]}, "none.csv does not exist, but the S3 Inventory"),
        ({"1.csv": b""}, {"files": [{"key": f"{FOLDER}/data/1.csv", "size": 3}]}, "is not the 3 bytes"),
        ({}, {"files": None}, "is no manifest of an S3 Inventory: files: .* list"),
    ],
)
def test_a_report_that_cannot_be_used_is_refused(
    bucket: Store, files: dict[str, bytes], changed: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        list(list_images(report(bucket, files, **changed)))


def test_a_report_is_never_held_in_memory(bucket: Store) -> None:
    row, n = csv_file([version("x" * 900 + ".jpg", "e")]), 40_000
    images = list_images(report(bucket, {"1.csv.gz": gzip.compress(row * n, 1)}))
    next(images)
    tracemalloc.start()
    assert sum(1 for _ in images) == n - 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(row) * n / 2


def test_all_reports_of_one_inventory_are_the_same_input() -> None:
    assert absolute(f"s3://bucket/{REPORT}") == f"s3://bucket/{FOLDER}"
    assert absolute("s3://bucket/photos/manifest.json") == "s3://bucket/photos/manifest.json"


def deliver(bucket: Store, day: int, *names: str) -> str:
    """What S3 writes of the report of a day; returns the URI that its manifest has."""
    for name in names:
        bucket.write(f"{FOLDER}/2026-11-{day}T01-00Z/{name}", b"{}")
    bucket.write(f"{FOLDER}/hive/dt=2026-11-{day}-01-00/symlink.txt", b"")
    return bucket.uri_of(f"{FOLDER}/2026-11-{day}T01-00Z/manifest.json")


@pytest.mark.parametrize("ending", ["", "/", "/hive", "/hive/"])
def test_of_an_inventorys_folder_the_newest_finished_report_is_taken(bucket: Store, ending: str) -> None:
    deliver(bucket, 18, "manifest.json", "manifest.checksum")
    newest = deliver(bucket, 19, "manifest.json", "manifest.checksum")
    deliver(bucket, 20, "manifest.json")
    bucket.write(f"{FOLDER}/data/1.parquet", b"")
    bucket.write(f"{FOLDER}-2/2026-11-20T01-00Z/manifest.json", b"")
    bucket.write(f"{FOLDER}-2/2026-11-20T01-00Z/manifest.checksum", b"")
    assert newest_report(bucket.uri_of(FOLDER) + ending) == newest


def test_an_inventory_without_a_finished_report_is_refused(bucket: Store) -> None:
    deliver(bucket, 20, "manifest.json")
    with pytest.raises(ConfigurationError, match="without a finished report"):
        newest_report(bucket.uri_of(FOLDER))


@pytest.mark.parametrize("name", ["", "/", "2026-11-19T01-00Z/manifest.json", "in", "in/", "in/*.jpg"])
def test_anything_else_is_left_as_it_is(bucket: Store, name: str) -> None:
    bucket.write("in/hive/dt=2026-11-20-01-00/a.jpg", b"")
    bucket.write("in/2026-11-19T01-00Z/manifest.json", b"")
    bucket.write("in/2026-11-19T01-00Z/manifest.checksum", b"")
    assert newest_report(bucket.uri_of(name)) == bucket.uri_of(name)
    assert newest_report("photos") == "photos"


@pytest.mark.parametrize("manifest", [REPORT, "list.csv", "list.PARQUET"])
def test_who_may_only_read_a_manifest_is_asked_for_no_listing(manifest: str) -> None:
    assert newest_report(f"s3://no-such-bucket/{manifest}") == f"s3://no-such-bucket/{manifest}"


def test_a_table_in_the_bucket_is_not_among_its_images() -> None:
    images = [PlannedImage(image_uri=f"s3://photos/{key}") for key in ("a", "out/runs/1/plan.json", "out2")]
    assert [i.image_uri for i in outside(images, "s3://photos/out/")] == ["s3://photos/a", "s3://photos/out2"]
