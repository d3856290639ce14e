"""The place to sort in what does not fit in memory."""

import pyarrow as pa
import pytest

from ffaa_core.table import scratch as scratch_module
from ffaa_core.table.scratch import BATCH, scratch


def numbers(n: int) -> pa.RecordBatch:
    return pa.record_batch({"number": pa.array(range(n), pa.int64())})


def test_many_small_batches_go_in_by_few_insertions(monkeypatch: pytest.MonkeyPatch) -> None:
    insertions: list[int] = []

    class Counting(scratch_module.Scratch):
        def insert(self, table: str, rows: pa.Table | pa.RecordBatch) -> None:
            insertions.append(len(rows))
            super().insert(table, rows)

    monkeypatch.setattr(scratch_module, "Scratch", Counting)
    sizes = [BATCH // 4] * 9 + [0, 1]
    with scratch() as place:
        place.run("CREATE TABLE numbers (number BIGINT)")
        place.fill("numbers", map(numbers, sizes))
        (batch,) = place.query("SELECT count(*) AS rows, sum(number) AS total FROM numbers", {})
    assert batch.to_pylist() == [{"rows": sum(sizes), "total": sum(sum(range(size)) for size in sizes)}]
    assert insertions == [BATCH, BATCH, BATCH // 4 + 1]
