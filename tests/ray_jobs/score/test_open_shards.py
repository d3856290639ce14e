"""The shards of a run as Ray Data gets them."""

import pytest

from ray_jobs.score.cluster import cluster
from ray_jobs.score.config import ScoreConfig


def test_each_shard_is_a_block_of_its_own_in_order(
    monkeypatch: pytest.MonkeyPatch, no_ray_left_over: None
) -> None:
    """Ray Data's own choice is 200 blocks, of however many shards."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with cluster(ScoreConfig(), verbose=False):
        from ray.data import DataContext

        from ray_jobs.score.open_shards import open_shards

        monkeypatch.setattr(DataContext.get_current(), "target_max_block_size", None)
        for count in (1, 3, 250):
            shards = list(range(7, 7 + 4 * count, 4))
            read = open_shards(shards).materialize()
            assert read.num_blocks() == count
            assert [row["shard"] for row in read.iter_rows()] == shards
