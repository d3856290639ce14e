"""The sample images show what they are meant to show."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import dlib
import numpy as np
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError

SCRIPT = Path(__file__).parents[2] / "infra" / "samples.py"


def write_samples(folder: Path) -> None:
    subprocess.run([sys.executable, SCRIPT, folder], check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "images"
    write_samples(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "faces"),
    [
        ("astronaut.png", 1),
        ("coffee, no face.jpg", 0),
        ("drawn face.png", 1),
        ("two people.webp", 2),
    ],
)
def test_a_sample_has_the_faces_its_name_says(samples: Path, name: str, faces: int) -> None:
    with Image.open(samples / name) as image:
        pixels = np.asarray(image.convert("RGB"))
    found, _scores, _sub_detectors = dlib.get_frontal_face_detector().run(pixels, 1, 0.5)
    assert len(found) == faces


def test_the_rotated_sample_is_upright_once_its_exif_data_is_followed(samples: Path) -> None:
    with (
        Image.open(samples / "rotated by exif.jpg") as lying,
        Image.open(samples / "astronaut.png") as upright,
    ):
        turned = np.asarray(ImageOps.exif_transpose(lying), dtype=float)
        assert np.abs(turned - np.asarray(upright, dtype=float)).mean() < 5
        assert np.abs(np.asarray(lying, dtype=float) - np.asarray(upright, dtype=float)).mean() > 20


def test_the_damaged_sample_starts_well_and_cannot_be_read_to_its_end(samples: Path) -> None:
    with Image.open(samples / "damaged.jpg") as image, pytest.raises(OSError, match="truncated"):
        image.load()


def test_one_sample_is_no_image_and_one_has_more_pixels_than_are_accepted(samples: Path) -> None:
    with pytest.raises(UnidentifiedImageError):
        Image.open(BytesIO((samples / "not an image.jpg").read_bytes()))
    with pytest.warns(Image.DecompressionBombWarning), Image.open(samples / "too many pixels.png") as image:
        assert image.width * image.height == 10**8


def test_a_second_call_leaves_the_samples_as_they_are(samples: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in samples.iterdir()}
    write_samples(samples)
    assert {path.name: path.stat().st_mtime_ns for path in samples.iterdir()} == before
