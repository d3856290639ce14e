"""Where Ray Data gets the shards of a run from."""

from collections.abc import Sequence

import pyarrow as pa
import ray.data
from ray.data import DataContext, Dataset
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask


def open_shards(shards: Sequence[int]) -> Dataset:
    """The numbers of the shards to do, in order, in the column `shard`: each a block of its own.

    One task gives them all, and takes no core. `ray.data.range` makes a task of each block, and the driver
    holds every one for as long as the run goes: 7 KiB a shard.
    """
    read: Dataset = ray.data.read_datasource(_Shards(shards), override_num_blocks=len(shards), num_cpus=0)
    return read


class _Shards(Datasource):
    """What has one read task, whose table Ray Data splits into as many blocks as are asked for."""

    def __init__(self, shards: Sequence[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._table = pa.table({"shard": pa.array(shards, pa.int64())})

    def estimate_inmemory_data_size(self) -> int:
        return int(self._table.nbytes)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        table = self._table
        size = self.estimate_inmemory_data_size()
        metadata = BlockMetadata(num_rows=len(table), size_bytes=size, exec_stats=None, input_files=None)
        return [
            ReadTask(lambda: [table], metadata, schema=table.schema, per_task_row_limit=per_task_row_limit)
        ]
