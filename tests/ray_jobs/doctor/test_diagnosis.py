"""What is looked at after what, and what one finding means for the next."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from ffaa_core.bundle import Bundle
from ffaa_core.storage import open_store
from ray_jobs.doctor.diagnosis import Diagnosis
from ray_jobs.doctor.finding import Finding, ok
from ray_jobs.doctor.output import Probes
from ray_jobs.score.config import ScoreConfig
from tests.fixtures.s3 import S3Server, use
from tests.ray_jobs.score.test_inventory import FOLDER, deliver

MakeImages = Callable[[Path, int], Path]


def diagnosis(images: Path | str, output: Path, bundle: Path) -> Diagnosis:
    return Diagnosis(
        config=ScoreConfig(bundle=str(bundle)), input_uri=str(images), output_uri=str(output), quick=True
    )


def test_an_output_inside_the_input_is_an_error_and_nothing_is_written_there(
    demo_bundle: Bundle, make_images: MakeImages, tmp_path: Path
) -> None:
    images = make_images(tmp_path / "in", 1)
    *_, last = diagnosis(images, images / "out", demo_bundle.path).findings()
    assert (last.check, last.level.value) == ("output", "error")
    assert "give OUTPUT a place of its own" in last.text
    assert [path.name for path in images.iterdir()] == ["0000.png"]


def test_every_node_is_asked_for_an_image_the_bundle_and_output(
    demo_bundle: Bundle, make_images: MakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    must_see: list[str] = []

    def note(self: Diagnosis, place: Probes) -> list[Finding]:
        must_see.extend(self._must_see(place))
        assert all(Path(uri).is_file() for uri in must_see)
        return [ok("ray", "not started")]

    monkeypatch.setattr(Diagnosis, "_look_at_cluster", note)
    images, output = make_images(tmp_path / "in", 2), tmp_path / "out"
    found = list(diagnosis(images, output, demo_bundle.path).findings())
    assert found[-1].text == "not started"
    image, bundle, probe = must_see
    assert image == str(images / "0000.png")
    assert bundle == str(demo_bundle.path / "bundle.json")
    assert probe.startswith(f"{output}/ffaa-doctor-")


def test_of_an_inventory_the_newest_report_is_looked_at(
    demo_bundle: Bundle, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(moto_server, monkeypatch)
    bucket = open_store(f"s3://{moto_server.fresh_bucket()}")
    newest = deliver(bucket, 20, "manifest.json", "manifest.checksum")
    examined = diagnosis(bucket.uri_of(FOLDER), tmp_path / "out", demo_bundle.path)
    told, refused = islice(examined.findings(), 2)
    assert told.text.endswith(f"its newest report is {newest}")
    assert f"{newest} is no manifest of an S3 Inventory" in refused.text  # nobody wrote anything in it
    assert examined.input_uri == newest
