"""Whatever is killed, and whenever: started again, the command ends with the table of an undisturbed run."""

import asyncio
import csv
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ffaa_core.bundle import Bundle
from ffaa_core.scorer import Scorer
from ffaa_core.settings import FaceSettings, ScoringSettings
from ffaa_core.storage import open_store
from ffaa_core.verdict import FaceVerdict, ImageVerdict, Status
from tests.fixtures.ceph import Ceph
from tests.fixtures.command import FAST, Ffaa
from tests.fixtures.s3 import use
from tests.ray_jobs.score.campaign import Campaign, Pace, seed_of_today, verdicts
from tests.ray_jobs.score.scripted import ScriptedEngine, ScriptedJudge

N_IMAGES = 60
SCRIPTED_SHARD, REAL_SHARD = 5, 2
"""Images in a shard; of the real models the engine has several shards in hand at once, and MIDS is quick."""

EACH = ("driver", "fetch", "answer", "judge", "raylet", "radosgw")
AT_ITS_WORK = (*["fetch"] * 2, *["answer"] * 3, *["judge"] * 3, *["radosgw"] * 2)
ENDING_IT = ("driver", "command", "raylet", "gcs", "progress")
ROUNDS = [(ENDING_IT * 2)[number : number + 3] for number in range(4)]
"""What ends the command, in each round of the campaign, beside what it goes on without."""
REAL = {
    "engine inside its worker": ("answer", "judge", *EACH),
    "engine of its own": ("engine", "engine", "engine", "driver", "radosgw"),
}

AT_WORK = {"FFAA_TEST_READ_S": "0.3", "FFAA_TEST_FACE_S": "3", "FFAA_TEST_JUDGE_S": "0.1"}
"""So slow that kills meet work in every stage. The engine, with three shards at once, is the slowest."""
SCRIPTED_PACE = Pace(start_s=8, shard_s=1, at_once=3)
REAL_PACE = Pace(start_s=45, shard_s=2, at_once=6)

REAL_OPTIONS = ("--dtype", "float32", *FAST)
DECODING_NOISE = 0.01


@pytest.fixture
def run_campaign(
    ceph: Ceph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, ImageVerdict]]:
    """Runs a job on Ceph under kills, checks its table, and says what that holds of each image."""
    use(ceph.server, monkeypatch)
    bucket = f"s3://{ceph.server.fresh_bucket()}"

    def run(
        ffaa: Ffaa,
        images: Path,
        options: Sequence[str],
        kinds: Sequence[str],
        seed: int,
        pace: Pace,
        shard_size: int,
    ) -> dict[str, ImageVerdict]:
        print(f"FFAA_TEST_SEED={seed}")
        upload(images, f"{bucket}/in")
        on_s3 = ffaa.with_environment(**ceph.server.environment())
        output = f"{bucket}/out"
        command = ("score", f"{bucket}/in/", output, "--shard-size", str(shard_size), *options)
        n_shards = N_IMAGES // shard_size
        campaign = Campaign(on_s3, command, output, ceph, tmp_path, seed=seed, n_shards=n_shards, pace=pace)
        campaign.run(kinds)
        verified = on_s3("table", "verify", output)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        found = verdicts(output)
        assert sorted(found) == sorted(path.name for path in images.iterdir())
        assert {verdict.status for verdict in found.values()} == {Status.SCORED}
        return found

    return run


def upload(images: Path, uri: str) -> None:
    store = open_store(uri)
    for path in images.iterdir():
        store.write(path.name, path)


def scripted_verdicts(images: Path) -> dict[str, ImageVerdict]:
    """What the scripted models say of each image, by its name, asked by the library and not by a run."""
    scorer = Scorer(
        ScriptedEngine(), ScriptedJudge(), ScoringSettings(faces=FaceSettings(mode="whole_image"))
    )

    async def score() -> dict[str, ImageVerdict]:
        async with scorer:
            paths = sorted(images.iterdir())
            scored = await asyncio.gather(*(scorer.score(path.read_bytes()) for path in paths))
        return {path.name: verdict for path, verdict in zip(paths, scored, strict=True)}

    return asyncio.run(score())


@pytest.mark.timeout(1200)
def test_each_part_of_a_run_is_killed_once_and_the_table_is_that_of_an_undisturbed_run(
    scripted: Ffaa,
    make_images: Callable[[Path, int], Path],
    tmp_path: Path,
    run_campaign: Callable[..., dict],
) -> None:
    images = make_images(tmp_path / "images", N_IMAGES)
    found = run_campaign(
        scripted.with_environment(**AT_WORK),
        images,
        ("--faces", "whole_image"),
        EACH,
        seed_of_today(),
        SCRIPTED_PACE,
        SCRIPTED_SHARD,
    )
    assert found == scripted_verdicts(images)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", range(len(ROUNDS)))
def test_a_campaign_against_scripted_models(
    scripted: Ffaa,
    make_images: Callable[[Path, int], Path],
    tmp_path: Path,
    run_campaign: Callable[..., dict],
    number: int,
) -> None:
    images = make_images(tmp_path / "images", N_IMAGES)
    found = run_campaign(
        scripted.with_environment(**AT_WORK),
        images,
        ("--faces", "whole_image"),
        (*AT_ITS_WORK, *ROUNDS[number]),
        seed_of_today() + number,
        SCRIPTED_PACE,
        SCRIPTED_SHARD,
    )
    assert found == scripted_verdicts(images)


@dataclass(frozen=True)
class Undisturbed:
    """Photographs with one face each, and what the real models say of each, by its name."""

    images: Path
    verdicts: dict[str, ImageVerdict]


@pytest.fixture(scope="module")
def undisturbed(
    shared_faces: Path, demo_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    images, output = photographs(shared_faces, folder / "images"), folder / "table"
    ffaa = Ffaa(dict(os.environ) | {"FFAA_BUNDLE": str(demo_bundle.path)})
    done = ffaa("score", images, output, "--shard-size", str(REAL_SHARD), *REAL_OPTIONS)
    assert done.returncode == 0, done.stderr
    return Undisturbed(images, verdicts(str(output)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kinds", REAL.values(), ids=REAL)
def test_a_campaign_against_the_real_models(
    ffaa: Ffaa, undisturbed: Undisturbed, run_campaign: Callable[..., dict], kinds: Sequence[str]
) -> None:
    own_process = {"VLLM_ENABLE_V1_MULTIPROCESSING": str(int("engine" in kinds))}
    found = run_campaign(
        ffaa.with_environment(**own_process),
        undisturbed.images,
        REAL_OPTIONS,
        kinds,
        seed_of_today(),
        REAL_PACE,
        REAL_SHARD,
    )
    expected = undisturbed.verdicts
    assert [name for name in expected if not same(found[name], expected[name])] == []
    identical = sum(found[name] == expected[name] for name in expected)
    print(f"{identical} of {len(expected)} images have the same row to the last digit")


def photographs(shared_faces: Path, folder: Path) -> Path:
    """A folder of photographs with one face each."""
    folder.mkdir()
    with (shared_faces / "real_extra" / "manifest.csv").open() as file:
        files = [row["file"] for row in csv.DictReader(file) if row["faces_hog"] == "1"]
    for name in files[:N_IMAGES]:
        shutil.copy(shared_faces / "real_extra" / name, folder)
    return folder


def same(image: ImageVerdict, other: ImageVerdict) -> bool:
    """Whether two verdicts on an image are equal up to decoding noise."""
    faces = list(zip(image.faces, other.faces, strict=True))
    return image.verdict == other.verdict and all(same_face(*pair) for pair in faces)


def same_face(face: FaceVerdict, other: FaceVerdict) -> bool:
    assert face.match_score is not None
    assert other.match_score is not None
    return (face.crop_sha256, face.verdict, face.chosen) == (
        other.crop_sha256,
        other.verdict,
        other.chosen,
    ) and math.isclose(face.match_score, other.match_score, abs_tol=DECODING_NOISE)
