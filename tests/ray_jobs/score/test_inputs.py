"""Listing what INPUT names."""

import os
from pathlib import Path

import pytest

from ffaa_core.errors import ConfigurationError
from ray_jobs.score.inputs import list_images, require_apart

ODD_NAMES = ["a[1].jpg", "plain.jpg", "with space.png", "star*.jpg", "ünïcode.webp", "n" * 200, "no_suffix"]


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def uris(address: Path | str, **options: str) -> list[str]:
    return [image.image_uri for image in list_images(str(address), **options)]


def test_every_file_of_a_folder_is_an_input_once(tmp_path: Path) -> None:
    write(tmp_path, *ODD_NAMES, "below/deeper/more.jpg")
    assert sorted(uris(tmp_path)) == sorted(str(tmp_path / n) for n in [*ODD_NAMES, "below/deeper/more.jpg"])


def test_a_name_that_is_not_utf8_is_percent_encoded(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"x")
    assert uris(tmp_path) == [f"file://{tmp_path}/caf%E9.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "sub/c.jpg"]),
        ("?.png", ["d.png"]),
        ("[ab].jpg", ["a.jpg", "b.jpg"]),
    ],
)
def test_a_glob_selects_by_name(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    write(tmp_path, "a.jpg", "b.jpg", "d.png", "sub/c.jpg")
    assert uris(tmp_path / pattern) == [str(tmp_path / name) for name in expected]


def test_an_object_of_exactly_this_name_is_no_glob(tmp_path: Path) -> None:
    write(tmp_path, "a[1].jpg", "a1.jpg")
    assert uris(tmp_path / "a[1].jpg") == [str(tmp_path / "a[1].jpg")]


def test_a_folder_of_exactly_this_name_is_no_glob(tmp_path: Path) -> None:
    write(tmp_path, "photos [2024]/a.jpg", "photos 2/b.jpg")
    assert uris(tmp_path / "photos [2024]") == [str(tmp_path / "photos [2024]" / "a.jpg")]


def test_a_glob_may_stand_below_a_folder_with_brackets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "run [1]", "a.jpg", "b.png")
    monkeypatch.chdir(folder)
    assert uris("*.jpg") == [str(folder / "a.jpg")]
    assert uris(".") == [str(folder / name) for name in ("a.jpg", "b.png")]
    require_apart(".", "../out")


def test_listed_images_have_version_and_size(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    (image,) = list_images(str(tmp_path))
    assert image.size_bytes == 1
    assert image.planned_version


@pytest.mark.parametrize(
    ("name", "told"),
    [("missing", "does not exist"), ("missing/*.jpg", "no object matches"), ("empty", "holds no files")],
)
def test_an_input_that_names_nothing_is_refused(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=f"nothing to score: .*{told}"):
        uris(tmp_path / name)


@pytest.mark.parametrize(
    ("images", "output"),
    [
        ("/data/in", "/data/in/out"),
        ("/data/in/raw", "/data/in"),
        ("/data/in", "/data/in"),
        ("s3://b/in/", "s3://b/in/out"),
        ("s3://b", "s3://b/out"),
        ("s3://b/2026", "s3://b/2026-verdicts"),
        ("/data/in/*", "/data/in/out"),
        ("/data/in/**/*.jpg", "/data/in/out"),
        ("/data/in/[ab]/*.jpg", "/data/in/out"),
    ],
)
def test_an_output_that_overlaps_the_input_is_refused(images: str, output: str) -> None:
    with pytest.raises(ConfigurationError, match="a place of its own"):
        require_apart(images, output)


@pytest.mark.parametrize(
    ("images", "output"),
    [
        ("/data/in", "/data/out"),
        ("/data/in", "/data/in2"),
        ("/data/in/*.jpg", "/data/out"),
        ("s3://b/in", "s3://b/out"),
        ("s3://b/2026/", "s3://b/2026-verdicts"),
        ("s3://a", "s3://b"),
    ],
)
def test_an_output_beside_the_input_is_fine(images: str, output: str) -> None:
    require_apart(images, output)
