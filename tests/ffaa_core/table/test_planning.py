"""Planning: which images a run gets, how they are cut into shards, and whether it may begin at all."""

import shutil

import pytest

from ffaa_core.errors import RunConflictError
from ffaa_core.table import PlannedImage, plan
from ffaa_core.table.verify import verify
from ffaa_core.verdict import Status
from tests.ffaa_core.table.damage import problems_of, table_path
from tests.ffaa_core.table.shards import WAY, fails, images, rows, rows_of, score_all, unlisted


def test_duplicates_of_a_listing_are_planned_once(table):
    assert table.plan([*images(3), *images(3)], **WAY).n_images == 3


def test_shards_are_cut_by_number_and_by_bytes(table):
    sizes = [10, 90, 20, 500, None, 5, 5]
    listing = [PlannedImage(image_uri=f"/{i}", size_bytes=size) for i, size in enumerate(sizes)]
    run = table.plan(listing, shard_size=3, shard_bytes=100, **WAY)
    cut = [run.plan_rows(shard)["size_bytes"].to_pylist() for shard in range(run.n_shards)]
    assert cut == [[10, 90], [20], [500], [None, 5, 5]]


def test_plans_of_several_parts_hold_every_shard_once(table, monkeypatch):
    monkeypatch.setattr(plan, "SHARDS_PER_PART", 3)
    monkeypatch.setattr(plan, "BATCH", 5)
    run = table.plan(images(50), shard_size=2, **WAY)
    assert len(run.plan.parts) == 9
    planned = [uri for shard in range(25) for uri in run.plan_rows(shard)["image_uri"].to_pylist()]
    assert planned == [image.image_uri for image in images(50)]


def test_an_open_run_is_continued_without_listing_again(table):
    run = table.plan(images(10), shard_size=4, **WAY)
    run.commit(1, rows_of(run, 1), writer="w", engine={})
    again = table.plan(unlisted(), **WAY)
    assert (again.ordinal, again.open_shards()) == (1, [0, 2])


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"fingerprint": "f2"}, "fingerprint: was f1, is f2"),
        (
            {"settings": {"faces": {"mode": "published"}, "formats": ["JPEG"]}},
            "faces.mode: was detect, is published",
        ),
        ({"kind": "mine"}, "kind: was score, is mine"),
    ],
)
def test_an_open_run_with_other_settings_is_a_conflict(table, other, told):
    table.plan(images(2), name="monday", **WAY)
    with pytest.raises(RunConflictError, match=r"run 1 \(monday\) is open .* other settings") as error:
        table.plan(images(2), **{**WAY, **other})
    assert f"({told})" in str(error.value)
    assert f"`ffaa table abandon {table.uri}`" in str(error.value)
    assert error.value.exit_code == 75


def test_a_setting_that_is_nothing_is_one_that_older_plans_lack(table):
    table.plan(images(2), **WAY)
    assert table.plan(unlisted(), **{**WAY, "settings": {**WAY["settings"], "warning": None}}).ordinal == 1


def test_transient_images_are_planned_three_times_in_all(table):
    for attempt in (1, 2, 3):
        run = table.plan(images(4), **WAY)
        assert run.n_images == (4 if attempt == 1 else 1)
        assert set(run.plan_rows(0)["attempts"].to_pylist()) == {attempt}
        score_all(run, fails("0002"))
        run.close(0)
    assert table.plan(images(4), **WAY) is None
    retried = table.plan(images(4), retry=[Status.FETCH_FAILED], **WAY)
    assert retried.plan_rows(0).to_pylist()[0]["attempts"] == 4


def test_settled_failures_are_planned_again_only_on_request(table):
    run = table.plan(images(4), **WAY)
    score_all(run, fails("0002", status="decode_failed"))
    run.close(0)
    assert table.plan(images(4), **WAY) is None
    assert table.plan(images(4), retry=[Status.DECODE_FAILED], **WAY).n_images == 1


@pytest.mark.parametrize("version", ["v1", None])
def test_an_image_that_was_gone_and_is_listed_again_is_planned_three_times_in_all(table, version):
    listing = images(2, version)
    for attempt in (1, 2, 3):
        run = table.plan(listing, **WAY)
        assert set(run.plan_rows(0)["attempts"].to_pylist()) == {attempt}
        score_all(run, fails("0001", status="gone"))
        run.close(0)
    assert run.plan_rows(0)["image_uri"].to_pylist() == ["s3://in/0001.jpg"]
    assert table.plan(listing, **WAY) is None


def test_changed_images_and_new_ones_are_planned(table):
    run = table.plan(images(3), **WAY)
    score_all(run)
    run.close(0)
    listing = [*images(1), *images(2, "v2")[1:], *images(4)[2:]]
    uris = table.plan(listing, **WAY).plan_rows(0)["image_uri"].to_pylist()
    assert uris == ["s3://in/0001.jpg", "s3://in/0003.jpg"]


def test_the_version_that_was_scored_counts_not_the_one_planned(table):
    run = table.plan(images(1, "v1"), **WAY)
    score_all(run, lambda row: {"image_version": "v2"})
    run.close(0)
    assert table.plan(images(1, "v2"), **WAY) is None


def test_an_image_without_a_listed_version_is_settled_by_any(table):
    run = table.plan([PlannedImage(image_uri="/a")], **WAY)
    score_all(run, lambda row: {"image_version": "v2"})
    run.close(0)
    assert table.plan([PlannedImage(image_uri="/a")], **WAY) is None


def test_another_fingerprint_scores_everything_anew(table):
    run = table.plan(images(3), **WAY)
    score_all(run)
    run.close(0)
    assert table.plan(images(3), **{**WAY, "fingerprint": "f2"}).n_images == 3


def test_a_named_run_that_is_closed_is_not_planned_again(table):
    run = table.plan(images(1), name="monday", **WAY)
    score_all(run, fails("0000"))
    run.close(0)
    assert table.plan(unlisted(), name="monday", **WAY) is None
    assert table.plan(images(1), name="tuesday", **WAY).n_images == 1


def test_a_plan_that_nobody_sealed_is_no_problem(table):
    table.store.write("runs/1/plan/someone/000000.parquet", b"half a plan")
    assert list(verify(table)) == []
    assert table.plan(images(1), **WAY).ordinal == 1


def test_what_a_run_settled_that_was_deleted_whole_is_planned_again(table):
    for listed in (images(4), images(6), images(8)):
        run = table.plan(listed, shard_size=2, **WAY)
        score_all(run)
        run.close(0)
    shutil.rmtree(table_path(table) / "runs" / "2")

    assert problems_of(table) == []
    assert {row["image_uri"] for row in rows(table)} == {f"s3://in/{i:04d}.jpg" for i in (0, 1, 2, 3, 6, 7)}
    again = table.plan(images(8), shard_size=2, **WAY)
    assert again.ordinal == 4
    assert again.plan_rows(0)["image_uri"].to_pylist() == ["s3://in/0004.jpg", "s3://in/0005.jpg"]
