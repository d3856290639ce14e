"""A CSV or Parquet manifest as INPUT: a column of image addresses."""

import csv
import io
from collections.abc import Iterator
from typing import BinaryIO

from ffaa_core.errors import ConfigurationError
from ffaa_core.storage import ObjectInfo, Store, locate
from ffaa_core.table import PlannedImage


def read_manifest(store: Store, manifest: ObjectInfo, column: str) -> Iterator[PlannedImage]:
    """The images whose addresses stand in `column`. A manifest tells neither versions nor sizes.

    Raises:
        ConfigurationError: it cannot be read, lacks the column or any rows, or an address is empty or of a
            kind that no store serves.
    """
    row = 0
    with store.open(manifest.key) as file:
        for address in _addresses(file, manifest.uri, column):
            row += 1
            try:
                uri = _resolve(address, manifest)
            except ConfigurationError as error:
                raise ConfigurationError(f"{manifest.uri}, row {row}: {error}") from None
            yield PlannedImage(image_uri=uri, planned_version=None, size_bytes=None)
    if not row:
        raise ConfigurationError(f"nothing to score: the manifest {manifest.uri} has no rows")


def _addresses(file: BinaryIO, uri: str, column: str) -> Iterator[str | None]:
    """A manifest's column of addresses; other columns are not looked at."""
    import pyarrow as pa
    import pyarrow.parquet

    from ffaa_core.parquet import read_batches

    try:
        if uri.lower().endswith(".parquet"):
            _require_column(column, pyarrow.parquet.read_schema(file).names, uri)
            for batch in read_batches(file, columns=[column]):
                yield from batch[column].to_pylist()
        else:
            rows = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
            _require_column(column, list(rows.fieldnames or []), uri)
            yield from (row[column] for row in rows)
    except (pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the manifest {uri}: {error}") from error


def _require_column(column: str, names: list[str], uri: str) -> None:
    if column not in names:
        raise ConfigurationError(
            f"{uri} has no column {column!r} but {', '.join(names)}; name the right one with --uri-column"
        )


def _resolve(address: str | None, manifest: ObjectInfo) -> str:
    """The address as rows name it; a relative path is relative to the manifest.

    Raises:
        ConfigurationError: it is empty, or of a kind that no store serves.
    """
    if not address:
        raise ConfigurationError("the address is empty")
    if "://" not in address and not address.startswith("/"):
        address = f"{manifest.uri.rpartition('/')[0]}/{address}"
    locate(address.partition("?")[0] if address.startswith(("http://", "https://")) else address)
    return address
