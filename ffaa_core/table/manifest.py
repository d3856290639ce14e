"""All commits of a closed run as one Parquet object, so that readers open one instead of thousands."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ffaa_core.parquet import read_batches
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

AT_ONCE = 512
"""Commits that are held in memory as such: with what they ran on each takes some kilobytes."""


def encode(commits: Iterable[Commit]) -> bytes:
    """The manifest of a run whose commits these are."""
    rows = map(_to_row, commits)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        while some := list(islice(rows, AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(some, schema=SCHEMA))
    return bytes(sink.getvalue().to_pybytes())


def decode(data: bytes) -> Iterator[Commit]:
    """The commits of a manifest, by shard."""
    for batch in read_batches(pa.BufferReader(data), size=AT_ONCE):
        for row in batch.to_pylist():
            counts, engine = Counts(**json.loads(row.pop("counts"))), json.loads(row.pop("engine"))
            yield Commit(**row, counts=counts, engine=engine)


def _to_row(commit: Commit) -> dict[str, Any]:
    row = asdict(commit)
    return row | {"counts": json.dumps(row["counts"]), "engine": json.dumps(row["engine"])}
