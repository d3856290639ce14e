"""What the doctor says of INPUT."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ffaa_core.errors import ConfigurationError
from ffaa_core.settings import DecodeSettings
from ffaa_core.storage import open_store
from ffaa_core.table import PlannedImage
from ray_jobs.doctor import inputs
from ray_jobs.doctor.finding import Finding
from ray_jobs.doctor.inputs import check_input, read_whole
from ray_jobs.score.config import ScoreConfig
from tests.fixtures.s3 import S3Server, use

CONFIG = ScoreConfig()
MakeImages = Callable[[Path, int], Path]


def examined(uri: Path | str, config: ScoreConfig = CONFIG) -> tuple[list[Finding], list[PlannedImage]]:
    """The findings, and what was returned."""
    found, examination = [], check_input(str(uri), "/out", config)
    while True:
        try:
            found.append(next(examination))
        except StopIteration as ended:
            return found, ended.value


def levels(found: list[Finding]) -> list[str]:
    return [finding.level.value for finding in found]


def test_images_are_listed_looked_at_and_one_is_read(tmp_path: Path, make_images: MakeImages) -> None:
    found, images = examined(make_images(tmp_path / "in", 3))
    assert levels(found) == ["ok"] * 3
    assert found[0].text.startswith("3 objects listed")
    assert "all of the first 3 look like images" in found[1].text
    assert str(tmp_path / "in" / "0000.png") in found[2].text
    assert len(images) == 3


def test_on_s3_too(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_images: MakeImages
) -> None:
    use(moto_server, monkeypatch)
    bucket = f"s3://{moto_server.fresh_bucket()}"
    for path in make_images(tmp_path / "in", 2).iterdir():
        open_store(bucket).write(path.name, path)
    found, images = examined(bucket)
    assert levels(found) == ["ok"] * 3
    assert len(images) == 2


def test_no_more_is_looked_at_than_said(
    tmp_path: Path, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "SAMPLE", 2)
    found, images = examined(make_images(tmp_path / "in", 5))
    assert found[0].text.startswith("more than 2 objects listed")
    assert len(images) == 2


def test_some_that_are_no_images_are_a_warning_with_an_example(
    tmp_path: Path, make_images: MakeImages
) -> None:
    folder = make_images(tmp_path / "in", 3)
    (folder / "notes.jpg").write_text("no picture")
    found, images = examined(folder)
    assert levels(found) == ["ok", "warning", "ok"]
    assert "notes.jpg: it looks like plain text" in found[1].text
    assert "exit code 3" in found[1].advice
    assert len(images) == 3


def test_none_that_is_an_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "in" / "b").write_bytes(b"")
    found, images = examined(tmp_path / "in")
    assert levels(found) == ["ok", "error"]
    assert "it looks like a PDF document" in found[1].text
    assert "--formats" in found[1].advice
    assert images == []


def test_a_format_that_is_not_asked_for_is_told(tmp_path: Path, make_images: MakeImages) -> None:
    config = ScoreConfig(decode=DecodeSettings(formats=("JPEG",)))
    found, _ = examined(make_images(tmp_path / "in", 1), config)
    assert "it is a PNG, which is read only when asked for" in found[1].text


@pytest.mark.parametrize(("readable", "level"), [(1, "warning"), (0, "error")])
def test_what_cannot_be_read_is_told(
    tmp_path: Path, make_images: MakeImages, readable: int, level: str
) -> None:
    folder = make_images(tmp_path / "in", readable)
    (folder / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    found, images = examined(folder)
    assert found[1].level == level
    assert "dangling.jpg does not exist" in found[1].text
    assert len(images) == readable


def test_an_input_that_is_not_there_ends_the_examination(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="missing does not exist"):
        examined(tmp_path / "missing")


def test_a_version_that_reading_does_not_confirm_is_a_warning(
    tmp_path: Path, make_images: MakeImages
) -> None:
    (path,) = make_images(tmp_path / "in", 1).iterdir()
    found = read_whole(PlannedImage(image_uri=str(path), planned_version="listed"), 1 << 20)
    assert found.level == "warning"
    assert "was listed with version listed and read with" in found.text


def test_of_a_manifest_it_is_said_that_it_tells_no_versions(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "in", 1)
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"image_uri\n{tmp_path}/in/0000.png\n")
    found, _ = examined(manifest)
    assert levels(found) == ["ok"] * 3
    assert "changes go unnoticed" in found[0].text
