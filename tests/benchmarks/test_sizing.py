"""The arithmetic of docs/sizing.md: the program says the same, and runs make the requests it reckons."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from moto.moto_server.werkzeug_app import MotoRequestHandler

from benchmarks.sizing import NIGHTS, Night, Requests, comparing, main, scoring, table
from ffaa_core.storage import open_store
from ffaa_core.table import VerdictTable
from tests.ffaa_core.table.shards import WAY, images, score_all
from tests.fixtures.command import Ffaa
from tests.fixtures.s3 import S3Server, use

PAGE = Path(__file__).parents[2] / "docs" / "sizing.md"
SHARD_SIZE = 8


def requests_to_moto(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Verb and path of every request from now on."""
    calls: list[tuple[str, str]] = []
    monkeypatch.setattr(
        MotoRequestHandler,
        "log_request",
        lambda handler, code="-", size="-": calls.append((handler.command, handler.path)),
    )
    return calls


def counted(calls: list[tuple[str, str]]) -> Requests:
    verbs = Counter("LIST" if "list-type=2" in path else verb for verb, path in calls)
    return Requests(get=verbs["GET"] + verbs["HEAD"], put=verbs["PUT"], list=verbs["LIST"])


def test_the_table_of_the_page_is_what_the_program_says() -> None:
    assert table(NIGHTS) in PAGE.read_text()


def test_a_night_of_ones_own_is_reckoned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--images", "3600000", "--faces-per-gpu-second", "2", "--faces-per-image", "0.5"]) == 0
    assert "| GPU-hours | 250 |" in capsys.readouterr().out


def test_images_without_faces_need_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--images", "1000000", "--faces-per-image", "0"]) == 0
    assert "| cores for each GPU | - |" in capsys.readouterr().out


def test_large_images_make_smaller_shards() -> None:
    assert Night(images=1000, shard_size=1000, image_bytes=1 << 20).shards == 4


def test_planning_makes_the_requests_for_each_earlier_night_that_are_reckoned(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto_server, monkeypatch)
    calls = requests_to_moto(monkeypatch)
    table = VerdictTable.open(f"s3://{moto_server.fresh_bucket()}/out", create=True)
    made: list[Requests] = []
    for night in range(1, 5):
        listing = images(16 * night)
        calls.clear()
        run = table.plan(listing, shard_size=2, **WAY)
        made.append(counted(calls))
        assert run is not None
        assert run.n_images == 16
        score_all(run)
        run.close(0)
    for earlier in (1, 2):
        more = made[earlier + 1].get - made[earlier].get
        assert more == comparing(1, 16).get
    assert made[3].put == made[1].put


@pytest.mark.slow
def test_a_run_makes_the_requests_that_are_reckoned(
    scripted: Ffaa,
    make_images: Callable[[Path, int], Path],
    moto_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    use(moto_server, monkeypatch)
    calls = requests_to_moto(monkeypatch)
    ffaa = scripted.with_environment(**moto_server.environment())

    def scored(*arguments: str) -> Requests:
        calls.clear()
        done = ffaa("score", *arguments, "--faces", "whole_image", "--shard-size", str(SHARD_SIZE))
        assert done.returncode == 0, done.stderr
        return counted(calls)

    nights: dict[int, list[Requests]] = {}
    sizes = (64, 192)
    for n_images in sizes:
        bucket = f"s3://{moto_server.fresh_bucket()}"
        uploads = open_store(f"{bucket}/in")
        for path in make_images(tmp_path / str(n_images), n_images).iterdir():
            uploads.write(path.name, path)
        nights[n_images] = [scored(f"{bucket}/in/", f"{bucket}/out") for _ in ("first", "nothing new")]

    (first_64, second_64), (first_192, second_192) = (nights[n_images] for n_images in sizes)
    more_shards = 128 // SHARD_SIZE
    reckoned = scoring(192, 192 // SHARD_SIZE), scoring(64, 64 // SHARD_SIZE)
    assert first_192.put - first_64.put == reckoned[0].put - reckoned[1].put == 2 * more_shards
    assert first_192.list == first_64.list
    by_processes = first_192.get - first_64.get - (reckoned[0].get - reckoned[1].get)
    assert abs(by_processes) <= 4, "each process that fetches reads the seal and a plan part"
    assert second_192.get - second_64.get == comparing(1, 192).get - comparing(1, 64).get
    assert (second_192.put, second_192.list) == (0, second_64.list)
    for run, whole in zip((first_192, first_64), reckoned, strict=True):
        assert 0 <= run.get + run.put + run.list - whole.get - whole.put - whole.list <= 50
