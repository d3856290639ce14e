"""Counting what the stages have done."""

from ray_jobs.score.progress import Progress


def test_counts_add_up_over_shards_and_measures() -> None:
    progress = Progress()
    progress.report(0, "faces found", 3)
    progress.report(1, "faces found", 4)
    progress.report(1, "images answered", 2)
    assert progress.totals() == {"faces found": 7, "images answered": 2}


def test_a_shard_that_is_tried_again_is_counted_once() -> None:
    progress = Progress()
    progress.report(0, "faces answered", 5)
    progress.report(0, "faces answered", 1)
    assert progress.totals() == {"faces answered": 1}
