"""All commits of a closed run as one Parquet object, so that readers open one instead of thousands."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq

from ffaa_core.parquet import read_table
from ffaa_core.table.records import Commit, Counts

SCHEMA = pa.schema(
    [
        pa.field("run", pa.int32(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("file", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("writer", pa.string(), nullable=False),
        pa.field("counts", pa.string(), nullable=False),
        pa.field("engine", pa.string(), nullable=False),
    ]
)
"""One commit; `counts` and `engine` are JSON. A tombstone has no `file`."""


def encode(commits: Iterable[Commit]) -> bytes:
    """The manifest of a run whose commits these are."""
    rows = [asdict(commit) for commit in commits]
    for row in rows:
        row["counts"], row["engine"] = json.dumps(row["counts"]), json.dumps(row["engine"])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def decode(data: bytes) -> Iterator[Commit]:
    """The commits of a manifest, by shard."""
    for row in read_table(data).to_pylist():
        counts, engine = Counts(**json.loads(row.pop("counts"))), json.loads(row.pop("engine"))
        yield Commit(**row, counts=counts, engine=engine)
