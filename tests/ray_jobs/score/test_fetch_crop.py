"""Reading an image, or saying why it cannot be read."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ffaa_core.settings import DecodeSettings, ScoringSettings
from ffaa_core.storage import locate
from ffaa_core.verdict import ImageVerdict, Status
from ray_jobs.score.fetch_crop import Read, moving, read_image

SMALL = ScoringSettings(decode=DecodeSettings(max_bytes=10))


def test_an_image_is_read_with_the_version_of_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a[1] ü.jpg"
    path.write_bytes(b"0123456789")
    store, key = locate(str(path))
    assert read_image(str(path), SMALL) == (b"0123456789", store.stat(key).version)


def test_a_file_over_the_limit_is_too_large_and_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "big.jpg"
    with path.open("wb") as file:
        file.truncate(5_000_000_000)
    verdict, version = read_image(str(path), SMALL)
    assert isinstance(verdict, ImageVerdict)
    assert (verdict.status, verdict.image_bytes) == (Status.TOO_LARGE, 5_000_000_000)
    assert verdict.status_detail == "5,000,000,000 bytes, the limit is 10"
    assert version


def test_every_image_that_is_done_is_progress() -> None:
    """So that a shard of images which all take their time is no stall."""
    taken: list[Read] = []
    done: list[int] = []
    progress = SimpleNamespace(move=SimpleNamespace(remote=lambda: done.append(len(taken))))
    for read in moving(iter([(b"1", "v"), (b"2", "v")]), progress):  # type: ignore[arg-type]
        taken.append(read)
    assert done == [1, 2]


def test_a_file_that_is_no_more_is_gone(tmp_path: Path) -> None:
    verdict, version = read_image(str(tmp_path / "none.jpg"), SMALL)
    assert isinstance(verdict, ImageVerdict)
    assert (verdict.status, version) == (Status.GONE, None)


@pytest.mark.parametrize("uri", ["https://cdn.example/x.jpg", "ftp://host/x.jpg"])
def test_an_address_that_no_store_serves_fails_its_image_only(uri: str) -> None:
    verdict, _ = read_image(uri, SMALL)
    assert isinstance(verdict, ImageVerdict)
    assert verdict.status is Status.FETCH_FAILED
    assert "is not supported" in (verdict.status_detail or "")


def test_a_pipe_among_the_inputs_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    verdict, _ = read_image(str(tmp_path / "pipe.jpg"), SMALL)
    assert isinstance(verdict, ImageVerdict)
    assert verdict.status is Status.FETCH_FAILED
