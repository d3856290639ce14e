"""Night after night on one table: each scores what is new, changed, or failed for a passing reason."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ffaa_core.table import VerdictTable
from tests.fixtures.command import Ffaa
from tests.fixtures.hostile import DEADLY_DECODER
from tests.ray_jobs.score.test_hostile_images import make_deadly

N_IMAGES = 100


@pytest.mark.slow
def test_the_second_night_scores_what_is_new_changed_or_transient_and_nothing_else(
    scripted: Ffaa, make_images: Callable[[Path, int], Path], tmp_path: Path
) -> None:
    scripted = scripted.with_environment(PYTHONPATH=str(DEADLY_DECODER))
    images, output = make_images(tmp_path / "images", N_IMAGES - 1), tmp_path / "table"
    transient = Path(make_deadly(images / "0007.png", "SEGFAULT"))
    night = ("score", images, output, "--faces", "whole_image", "--shard-size", "8")
    first = scripted(*night, "--run", "monday")
    assert first.returncode == 0, first.stderr
    changed = images / "0042.png"
    changed.write_bytes((images / "0043.png").read_bytes())
    make_images(tmp_path / "more", N_IMAGES + 4)
    new = {path.rename(images / path.name) for path in sorted((tmp_path / "more").iterdir())[N_IMAGES - 1 :]}
    assert len(new) == 5

    second = scripted(*night, "--run", "tuesday")
    again = scripted(*night, "--run", "tuesday")

    assert second.returncode == 0, second.stderr
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stdout
    table = VerdictTable.open(str(output))
    runs = Counter[tuple[int, str]]()
    for batch in table.rows(latest=False, columns=["run", "image_uri"]):
        runs.update(zip(batch["run"].to_pylist(), batch["image_uri"].to_pylist(), strict=True))
    scored_second = {uri for run, uri in runs if run == 2}
    assert scored_second == set(map(str, {transient, changed, *new}))
    assert set(runs.values()) == {1}
    latest = [row for batch in table.rows(columns=["image_uri", "attempts"]) for row in batch.to_pylist()]
    assert Counter(row["attempts"] for row in latest) == {1: N_IMAGES + 4, 2: 1}
    assert scripted("table", "verify", output).returncode == 0


@pytest.mark.slow
def test_a_night_finishes_what_the_one_before_left_open_and_then_scores_what_is_new(
    scripted: Ffaa, make_images: Callable[[Path, int], Path], tmp_path: Path
) -> None:
    images, output = make_images(tmp_path / "images", 20), tmp_path / "table"
    night = ("score", images, output, "--faces", "whole_image", "--shard-size", "4")
    monday = scripted.with_environment(FFAA_TEST_FACE_S="0.5").start(*night, "--run", "monday")
    while not list(output.glob("runs/1/commits/*.json")):
        assert monday.poll() is None
        time.sleep(0.05)
    monday.kill()
    monday.wait()
    for new in sorted(make_images(tmp_path / "more", 23).iterdir())[20:]:
        new.rename(images / new.name)

    tuesday = scripted(*night, "--run", "tuesday")

    assert tuesday.returncode == 0, tuesday.stderr
    first, second = VerdictTable.open(str(output)).runs()
    assert (first.plan.name, first.n_images, first.open_shards()) == ("monday", 20, [])
    assert (second.plan.name, second.n_images, second.open_shards()) == ("tuesday", 3, [])
    assert scripted("table", "verify", output).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("later_s", [0, 8])
def test_two_drivers_of_one_run_make_one_row_of_each_image_and_tell_of_work_done_twice(
    scripted: Ffaa, make_images: Callable[[Path, int], Path], tmp_path: Path, later_s: float
) -> None:
    images, output = make_images(tmp_path / "images", 60), tmp_path / "table"
    slow = scripted.with_environment(FFAA_TEST_FACE_S="0.5")
    command = ("score", images, output, "--faces", "whole_image", "--shard-size", "5")
    said = [tmp_path / "first", tmp_path / "second"]
    first = slow.start(*command, said=said[0])
    time.sleep(later_s)
    second = slow.start(*command, said=said[1])
    ended = first.wait(300), second.wait(300)
    told = [path.read_text() for path in said]
    assert ended == (0, 0), told
    rows = [row for batch in VerdictTable.open(str(output)).rows() for row in batch.to_pylist()]
    assert sorted(row["image_uri"] for row in rows) == sorted(str(path) for path in images.iterdir())
    assert len(VerdictTable.open(str(output)).runs()) == 1
    assert scripted("table", "verify", output).returncode == 0
    assert any("the work on them was done twice" in text for text in told), told
