"""What the doctor says of the bundle, and of what OUTPUT holds already."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ffaa_core.bundle import Bundle
from ffaa_core.bundle.bundle import write_bundle_json
from ffaa_core.errors import AdapterError, BundleError, TableError
from ffaa_core.settings import fingerprint
from ffaa_core.storage import open_store
from ffaa_core.table import PlannedImage, VerdictTable
from ray_jobs.doctor.finding import Finding
from ray_jobs.doctor.models import check_bundle, check_fit, check_table
from ray_jobs.score.config import ScoreConfig


@pytest.fixture
def copied(demo_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_bundle.path, tmp_path / "bundle"))


def test_a_whole_bundle_is_read_whole(demo_bundle: Bundle) -> None:
    fine, warned = check_bundle(ScoreConfig(bundle=str(demo_bundle.path)))
    assert fine.level == "ok"
    assert f"all {len(demo_bundle.manifest.files())} files" in fine.text
    assert warned.level == "warning"
    assert "mean nothing" in warned.text


def test_one_changed_byte_is_found(copied: Path) -> None:
    weights = copied / "text" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match=r"text/model\.safetensors differs"):
        list(check_bundle(ScoreConfig(bundle=str(copied))))


def test_an_adapter_that_would_do_nothing_is_found(copied: Path, demo_bundle: Bundle) -> None:
    assert [finding.level for finding in check_fit(demo_bundle)] == ["ok"]
    weights = copied / "adapter" / "adapter_model.safetensors"
    renamed = {key.replace(".language_model.", "."): value for key, value in load_file(weights).items()}
    save_file(renamed, weights)
    with pytest.raises(AdapterError, match="would be ignored"):
        list(check_fit(write_bundle_json(copied, provenance={"test": "a mis-keyed adapter"})))


@pytest.fixture
def on_table(demo_bundle: Bundle, tmp_path: Path) -> Callable[[str], list[Finding]]:
    def examined(images: str) -> list[Finding]:
        return list(check_table(open_store(str(tmp_path / "out")), ScoreConfig(), images, demo_bundle))

    return examined


def open_run(output: Path, images: str, marked: str) -> None:
    listed = [PlannedImage(image_uri=f"{images}/a.jpg")]
    table = VerdictTable.open(str(output), create=True)
    assert table.plan(listed, fingerprint=marked, settings={"input": images})


def test_an_empty_output_is_fine(on_table: Callable[[str], list[Finding]]) -> None:
    (found,) = on_table("/in")
    assert found.level == "ok"
    assert "new table" in found.text


def test_a_table_without_an_open_run_is_fine(
    on_table: Callable[[str], list[Finding]], tmp_path: Path
) -> None:
    VerdictTable.open(str(tmp_path / "out"), create=True)
    (found,) = on_table("/in")
    assert found.level == "ok"


def test_other_things_in_output_are_refused(on_table: Callable[[str], list[Finding]], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("dear")
    with pytest.raises(TableError, match=r"holds 'letter\.txt'"):
        on_table("/in")


def test_an_open_run_of_this_command_goes_on(
    on_table: Callable[[str], list[Finding]], demo_bundle: Bundle, tmp_path: Path
) -> None:
    open_run(tmp_path / "out", "/in", fingerprint(ScoreConfig().scoring, demo_bundle.digests))
    (found,) = on_table("/in")
    assert found.level == "ok"
    assert "run 1 is open, the same command goes on with 1 of 1 shards" in found.text


@pytest.mark.parametrize(("images", "same_fingerprint"), [("/in", False), ("/other", True)])
def test_an_open_run_of_another_command_is_an_error(
    on_table: Callable[[str], list[Finding]],
    demo_bundle: Bundle,
    tmp_path: Path,
    images: str,
    same_fingerprint: bool,
) -> None:
    mine = fingerprint(ScoreConfig().scoring, demo_bundle.digests)
    open_run(tmp_path / "out", images, mine if same_fingerprint else "0" * 16)
    (found,) = on_table("/in")
    assert found.level == "error"
    assert "ffaa table abandon" in found.advice
