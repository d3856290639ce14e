"""Images and rows for tests: listings, and what a worker would offer of a planned shard."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from ffaa_core.table import PlannedImage, Run
from ffaa_core.table.schema import ROW_SCHEMA

WAY = {"fingerprint": "f1", "settings": {"faces": {"mode": "detect"}, "formats": ("JPEG",)}}
SCORED_AT = datetime(2026, 1, 1, tzinfo=UTC)


def images(n: int, version: str = "v1") -> list[PlannedImage]:
    return [
        PlannedImage(image_uri=f"s3://in/{i:04d}.jpg", planned_version=version, size_bytes=100)
        for i in range(n)
    ]


def rows_of(
    run: Run, shard: int, change: Callable[[dict[str, Any]], dict[str, Any]] | None = None
) -> pa.Table:
    """The rows of a shard, all scored and real; `change` gets each row and gives columns to replace."""
    rows = []
    for planned in run.plan_rows(shard).to_pylist():
        row = {
            "image_uri": planned["image_uri"],
            "planned_version": planned["planned_version"],
            "image_version": planned["planned_version"],
            "attempts": planned["attempts"],
            "status": "scored",
            "verdict": "real",
            "forgery_score": 0.25,
            "contested": False,
            "n_faces_detected": 1,
            "n_faces": 1,
            "run": run.ordinal,
            "fingerprint": run.fingerprint,
            "shard": shard,
            "scored_at": SCORED_AT,
        }
        rows.append({**row, **(change(row) if change else {})})
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)


def score_all(run: Run, change: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
    for shard in run.open_shards():
        run.commit(shard, rows_of(run, shard, change), writer="w", engine={"tokens": 10})


def rows(table, **options):
    return [row for batch in table.rows(**options) for row in batch.to_pylist()]


def fails(*names, status="fetch_failed"):
    """Rows whose image has one of these numbers fail."""
    return lambda row: {"status": status, "verdict": None} if row["image_uri"][8:12] in names else {}


def unlisted():
    """A listing that nobody may read."""
    raise AssertionError("listed again")
    yield
