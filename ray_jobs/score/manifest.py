"""A CSV or Parquet manifest as INPUT: a column of image addresses."""

import csv
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from ffaa_core.errors import ConfigurationError
from ffaa_core.storage import ObjectInfo, Store, locate
from ffaa_core.table import PlannedImage

if TYPE_CHECKING:
    import pyarrow as pa


def read_manifest(store: Store, manifest: ObjectInfo, column: str) -> Iterator[PlannedImage]:
    """The images whose addresses stand in `column`, in batches. A manifest tells neither versions nor sizes.

    Raises:
        ConfigurationError: it cannot be read, lacks the column or any rows, or an address is empty or of a
            kind that no store serves.
    """
    row = 0
    with store.open(manifest.key) as file:
        for batch in _batches(file, manifest.uri, column):
            for address in batch.column(0).to_pylist():
                row += 1
                try:
                    uri = _resolve(address, manifest)
                except ConfigurationError as error:
                    raise ConfigurationError(f"{manifest.uri}, row {row}: {error}") from None
                yield PlannedImage(image_uri=uri, planned_version=None, size_bytes=None)
    if not row:
        raise ConfigurationError(f"nothing to score: the manifest {manifest.uri} has no rows")


def _batches(file: BinaryIO, uri: str, column: str) -> Iterator["pa.RecordBatch"]:
    """A manifest's column of addresses, in batches; other columns are not looked at."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if uri.lower().endswith(".parquet"):
            parquet = pyarrow.parquet.ParquetFile(file)
            _require_column(column, parquet.schema_arrow.names, uri)
            yield from parquet.iter_batches(columns=[column])
        else:
            header = next(csv.reader([file.readline().decode("utf-8-sig")]), [])
            _require_column(column, header, uri)
            file.seek(0)
            convert = pyarrow.csv.ConvertOptions(include_columns=[column], column_types={column: pa.string()})
            yield from pyarrow.csv.open_csv(file, convert_options=convert)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
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
