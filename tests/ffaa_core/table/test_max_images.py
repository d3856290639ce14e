"""Planning no more than so many images at a time."""

from pathlib import Path

import pytest

from ffaa_core.table import VerdictTable, verdict_table
from ffaa_core.table.records import Plan, decode, encode
from tests.ffaa_core.table.shards import images, score_all

WAY = {"fingerprint": "f1", "settings": {}}


@pytest.fixture
def table(tmp_path: Path) -> VerdictTable:
    return VerdictTable.open(str(tmp_path / "out"), create=True)


def planned(table: VerdictTable, most: int | None) -> tuple[list[str], int]:
    """Plan and score a run: its images, and how many its seal says are left."""
    run = table.plan(images(10), shard_size=2, max_images=most, **WAY)
    assert run is not None
    uris = [uri for shard in range(run.n_shards) for uri in run.plan_rows(shard)["image_uri"].to_pylist()]
    assert len(uris) == run.n_images
    score_all(run)
    run.close(0)
    return uris, run.plan.n_left


def test_each_run_takes_the_first_of_what_the_runs_before_left(table: VerdictTable) -> None:
    uris = [image.image_uri for image in images(10)]
    assert planned(table, 3) == (uris[:3], 7)
    assert planned(table, 5) == (uris[3:8], 2)
    assert planned(table, 5) == (uris[8:], 0)
    assert table.plan(images(10), max_images=5, **WAY) is None


def test_without_a_bound_nothing_is_left(table: VerdictTable) -> None:
    assert planned(table, None) == ([image.image_uri for image in images(10)], 0)


@pytest.mark.parametrize("most", [1, 3, 4, 9, 10, 11])
def test_the_bound_may_fall_anywhere_in_what_is_read_at_once(
    table: VerdictTable, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_threes(place, retry, whole=verdict_table.unsettled):  # type: ignore[no-untyped-def]
        for batch in whole(place, retry):
            yield from (batch.slice(start, 3) for start in range(0, len(batch), 3))

    monkeypatch.setattr(verdict_table, "unsettled", in_threes)
    uris, left = planned(table, most)
    assert uris == [image.image_uri for image in images(10)][:most]
    assert left == max(0, 10 - most)


def test_an_open_run_keeps_its_images_whatever_is_asked_now(table: VerdictTable) -> None:
    table.plan(images(10), max_images=3, **WAY)
    again = table.plan(images(10), max_images=8, **WAY)
    assert again is not None
    assert (again.n_images, again.plan.n_left) == (3, 7)


def test_a_seal_of_before_leaves_nothing(table: VerdictTable) -> None:
    run = table.plan(images(2), **WAY)
    assert run is not None
    older = encode(run.plan).replace(b',"n_left":0', b"")
    assert b"n_left" not in older
    assert decode(Plan, older, "plan.json").n_left == 0
