"""Hostile files cost themselves, and nothing else."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from skimage import data

from ffaa_core.errors import ExaminerError
from ffaa_core.examiner import Examiner, memory_needed
from ffaa_core.pipeline import PendingImage, examine
from ffaa_core.settings import DecodeSettings, FaceSettings, ScoringSettings
from ffaa_core.verdict import Status
from tests.fixtures.hostile import DEADLY_DECODER, jpeg_of_many_scans
from tests.images import png

ASTRONAUT = png(data.astronaut())
WHOLE = ScoringSettings(faces=FaceSettings(mode="whole_image"))
Processes = Callable[[], list[psutil.Process]]
EVERY_FORMAT = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


@contextmanager
def examiner(settings: ScoringSettings = WHOLE, **limits: Any) -> Iterator[Examiner]:
    examiner = Examiner(settings, **limits)
    try:
        yield examiner
    finally:
        examiner.close()


def picture_of(shade: int) -> bytes:
    return png(np.full((40, 40, 3), shade, np.uint8))


@pytest.fixture
def processes() -> Callable[[], list[psutil.Process]]:
    """Lists the processes that examiners have started since the test began."""

    def children() -> list[psutil.Process]:
        living = filter(runs, psutil.Process().children())
        return [process for process in living if "examiner_process" in " ".join(process.cmdline())]

    others = children()
    return lambda: [process for process in children() if process not in others]


def crops(pending: PendingImage) -> list[bytes]:
    return [face.face.crop.tobytes() for face in pending.faces]


def test_a_photograph_is_examined_as_it_is_without_a_process_of_its_own() -> None:
    with examiner(ScoringSettings()) as isolated:
        pending = isolated.examine(ASTRONAUT)
    expected = examine(ASTRONAUT, ScoringSettings())
    assert pending.image == expected.image
    assert crops(pending) == crops(expected) != []
    assert [face.face.box for face in pending.faces] == [face.face.box for face in expected.faces]


DEATHS = {
    b"SEGFAULT": "was killed by signal SEGV",
    b"HANG": "timed out after 2 s",
    b"EAT MEMORY": "ran out of 300 MiB",
    b"LEAVE": "ended its process with code 3",
}


def test_deadly_images_are_crashed_and_those_between_them_are_examined(deadly_decoder: None) -> None:
    deadly = [picture_of(1) + deed for deed in DEATHS]
    with examiner(seconds=2, mib=300) as isolated:
        crashed = []
        for shade, image in enumerate(deadly):
            assert crops(isolated.examine(picture_of(shade))) == crops(examine(picture_of(shade), WHOLE))
            crashed.append(isolated.examine(image).image)
        assert isolated.examine(picture_of(9)).faces
    assert {image.status for image in crashed} == {Status.CRASHED}
    assert [image.status_detail for image in crashed] == [
        f"decoding or detection {how}" for how in DEATHS.values()
    ]
    assert [image.image_sha256 for image in crashed] == [hashlib.sha256(one).hexdigest() for one in deadly]
    assert [image.image_bytes for image in crashed] == [len(one) for one in deadly]


def test_a_real_jpeg_that_decodes_for_minutes_is_given_up() -> None:
    endless = jpeg_of_many_scans(4000, scans=20_000)
    assert len(endless) < 2_000_000
    with examiner(seconds=2) as isolated:
        started = time.monotonic()
        isolated.examine(picture_of(1))
        pending = isolated.examine(endless)
        assert time.monotonic() - started < 60
    assert pending.image.status_detail == "decoding or detection timed out after 2 s"


def test_one_process_examines_image_after_image_and_imports_nothing_heavy(processes: Processes) -> None:
    with examiner() as isolated:
        isolated.examine(picture_of(1))
        (process,) = processes()
        for shade in range(5):
            isolated.examine(picture_of(shade))
        assert processes() == [process]
        libraries = " ".join(mapped.path for mapped in process.memory_maps())
    assert "dlib" in libraries
    heavy = (
        "libtorch_cpu",
        "vllm/_C",
        "_raylet",
        "libarrow",
    )  # vLLM has its children preload torch's libgomp
    assert not [name for name in heavy if name in libraries]
    assert processes() == []


def test_a_process_that_dies_between_two_images_costs_none(processes: Processes) -> None:
    with examiner() as isolated:
        isolated.examine(picture_of(1))
        (process,) = processes()
        process.kill()
        process.wait(10)
        assert isolated.examine(picture_of(2)).faces


def test_a_process_that_leaks_is_replaced_before_it_has_taken_much(
    deadly_decoder: None, processes: Processes
) -> None:
    with examiner(mib=500) as isolated:
        isolated.examine(picture_of(1))
        (first,) = processes()
        assert isolated.examine(picture_of(2) + b"LEAK").faces
        assert isolated.examine(picture_of(3)).faces
        (second,) = processes()
    assert second != first


def test_an_interrupted_examination_does_not_answer_for_the_next_image(
    deadly_decoder: None, processes: Processes
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with examiner() as isolated:
        isolated.examine(picture_of(1))
        former = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(KeyboardInterrupt):
                isolated.examine(picture_of(2) + b"HANG")
        finally:
            signal.signal(signal.SIGALRM, former)
        assert processes() == []
        assert crops(isolated.examine(picture_of(3))) == crops(examine(picture_of(3), WHOLE))


def test_threads_get_the_answers_to_their_own_images(processes: Processes) -> None:
    images = [picture_of(shade) for shade in range(24)]
    with examiner(processes=2) as isolated, ThreadPoolExecutor(6) as threads:
        pending = list(threads.map(isolated.examine, images))
        assert 1 <= len(processes()) <= 2
    digests = [one.image.image_sha256 for one in pending]
    assert digests == [hashlib.sha256(image).hexdigest() for image in images]


def test_a_large_file_and_a_hundred_faces_pass_through() -> None:
    crowd = Image.fromarray(np.tile(data.astronaut()[:300, 60:360], (10, 10, 1)))
    file = io.BytesIO()
    crowd.save(file, "PNG", compress_level=1)
    settings = ScoringSettings(faces=FaceSettings(max_faces=100))
    large = file.getvalue().ljust(settings.decode.max_bytes, b"\0")
    with examiner(settings) as isolated:
        pending = isolated.examine(large)
    assert pending.image.image_bytes == len(large)
    assert len(pending.faces) >= 90


def uniform(kind: str, mode: str, side: int = 8000, **options: Any) -> bytes:
    """A picture of one colour that must be turned upright: small as a file, as large as any once decoded."""
    upright = Image.Exif()
    upright[0x0112] = 6
    if kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        options |= {"exif": upright}
    file = io.BytesIO()
    Image.new(mode, (side, side), "gray" if mode != "CMYK" else 0).save(file, kind, **options)
    return file.getvalue()


def test_the_largest_image_has_memory_enough_also_the_second_time() -> None:
    settings = ScoringSettings(
        decode=DecodeSettings(max_pixels=16_000_000, max_bytes=2**20), faces=FaceSettings(mode="whole_image")
    )
    largest = uniform("WEBP", "RGBA", side=4000, lossless=True, method=0)
    with examiner(settings) as isolated:
        found = [isolated.examine(largest).image.status_detail for _ in range(2)]
    assert found == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize("faces", ["detect", "published", "whole_image"])
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "CMYK", {"progressive": True, "subsampling": 0}),
        ("PNG", "RGBA", {}),
        ("PNG", "I;16", {}),
        ("WEBP", "RGB", {"method": 0}),
        ("WEBP", "RGBA", {"lossless": True, "method": 0}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "CMYK", {"compression": "tiff_lzw"}),
    ],
)
def test_images_of_64_megapixels_have_memory_enough(
    kind: str, mode: str, options: dict[str, Any], faces: Any
) -> None:
    settings = ScoringSettings(
        decode=DecodeSettings(formats=EVERY_FORMAT, max_bytes=2**28), faces=FaceSettings(mode=faces)
    )
    image = uniform(kind, mode, **options)
    mib = memory_needed(replace(settings, decode=DecodeSettings()))
    with examiner(settings, mib=mib, seconds=600) as isolated:
        found = isolated.examine(image).image
    assert (found.status_detail, found.n_faces_detected) == (None, 1 if faces == "whole_image" else 0)


def test_a_process_that_cannot_start_is_no_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with examiner() as isolated:
        for _ in range(2):
            with pytest.raises(ExaminerError, match="it ended with code 1"):
                isolated.examine(picture_of(1))


OWNER = """
import sys, time
from ffaa_core.examiner import Examiner
from ffaa_core.settings import ScoringSettings
examiner = Examiner(ScoringSettings(), seconds=float(sys.argv[2]))
examiner.examine(sys.argv[1].encode())
print("idle begins", file=sys.stderr, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("work", "seconds", "limit_s"), [("idle", 600, 5), ("LOOP", 600, 5), ("HANG", 2, 15)]
)
def test_no_process_outlives_an_owner_that_is_killed(work: str, seconds: int, limit_s: float) -> None:
    """One that hangs in C outlives it until its time is up: only the kernel's alarm reaches it there."""
    command = [sys.executable, "-c", OWNER, work, str(seconds)]
    environment = os.environ | {"PYTHONPATH": str(DEADLY_DECODER)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as owner:
        assert owner.stderr is not None
        assert owner.stderr.readline().decode() == f"{work} begins\n"
        (child,) = psutil.Process(owner.pid).children()
        owner.kill()
    deadline = time.monotonic() + limit_s
    while runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    outlived = runs(child)
    if outlived:
        child.kill()
    assert not outlived


def runs(process: psutil.Process) -> bool:
    """Whether it still runs; one that only waits to be reaped does not."""
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
