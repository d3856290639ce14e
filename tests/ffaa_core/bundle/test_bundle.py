"""A bundle opens cheaply and only when complete; verifying it reads everything and names what differs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ffaa_core.bundle import Bundle
from ffaa_core.bundle.bundle import write_bundle_json
from ffaa_core.errors import BundleError


@pytest.fixture
def small(tmp_path: Path) -> Bundle:
    """A bundle whose parts are a few bytes each, without an adapter."""
    directory = tmp_path / "small"
    for part in ("mllm", "mids", "vision", "text"):
        (directory / part / "deep").mkdir(parents=True)
        (directory / part / "config.json").write_text(part)
        (directory / part / "deep" / "weights").write_bytes(part.encode() * 2)
    return write_bundle_json(directory, provenance={"made_by": "hand"}, warning="beware")


def edited(small: Bundle, edit: Callable[[dict], object]) -> Path:
    file = small.path / "bundle.json"
    manifest = json.loads(file.read_text())
    edit(manifest)
    file.write_text(json.dumps(manifest))
    return small.path


def test_a_bundle_opens_as_it_was_written(small: Bundle) -> None:
    opened = Bundle.open(str(small.path))
    assert opened == small
    assert opened.provenance == {"made_by": "hand"}
    assert opened.warning == "beware"
    assert opened.text == small.path / "text"
    assert set(opened.digests) == {"mllm", "mids", "vision", "text"}
    assert opened.adapter is None
    opened.verify()


def test_the_demo_bundle_is_whole_and_has_an_adapter(demo_bundle: Bundle) -> None:
    opened = Bundle.open(demo_bundle.path)
    opened.verify()
    assert opened.adapter == demo_bundle.path / "adapter"
    assert set(opened.digests) == {"mllm", "adapter", "mids", "vision", "text"}


def test_a_flipped_byte_passes_opening_and_fails_verifying_by_name(small: Bundle) -> None:
    (small.mids / "deep" / "weights").write_bytes(b"midsmidz")
    (small.text / "config.json").write_text("TEXT")
    opened = Bundle.open(small.path)
    with pytest.raises(BundleError, match=r"mids/deep/weights differs; text/config\.json differs\. Copy"):
        opened.verify()
    opened.verify(["vision", "mllm"])


def test_a_flipped_byte_in_the_demo_bundles_weights_is_caught(demo_bundle: Bundle, tmp_path: Path) -> None:
    copy = Bundle.open(shutil.copytree(demo_bundle.path, tmp_path / "copy"))
    file = copy.vision / "open_clip_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"vision/open_clip_model\.safetensors differs"):
        Bundle.open(copy.path).verify()


def test_a_missing_or_cut_file_fails_opening_by_name(small: Bundle) -> None:
    (small.mllm / "config.json").unlink()
    (small.vision / "deep" / "weights").write_bytes(b"vis")
    with pytest.raises(BundleError, match=r"mllm/config\.json is missing.*vision/deep/weights has 3 bytes"):
        Bundle.open(small.path)


def test_files_and_parts_that_nobody_stated_fail_verifying(small: Bundle) -> None:
    (small.text / "extra").write_text("x")
    (small.path / "adapter").mkdir()
    (small.path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(BundleError, match=r"adapter/adapter_config\.json is not in.*text/extra is not in"):
        Bundle.open(small.path).verify()


def test_a_forged_part_digest_fails_verifying(small: Bundle) -> None:
    path = edited(small, lambda manifest: manifest["parts"]["text"].update(sha256="0" * 64))
    with pytest.raises(BundleError, match="the digest of text"):
        Bundle.open(path).verify()


def test_digests_follow_names_as_well_as_contents(small: Bundle) -> None:
    before = small.digests
    (small.mids / "config.json").rename(small.mids / "conf.json")
    after = write_bundle_json(small.path, provenance={}).digests
    assert after["mids"] != before["mids"]
    assert after["text"] == before["text"]


def test_where_there_is_no_bundle_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle at .*absent.*bundle\.json.*ffaa bundle demo DIR"):
        Bundle.open(tmp_path / "absent")


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda manifest: manifest.update(version=2), "version"),
        (lambda manifest: manifest.update(format="other"), "format"),
        (lambda manifest: manifest["parts"].pop("mids"), "names no mids"),
        (lambda manifest: manifest["parts"].update(extra=manifest["parts"]["mids"]), "extra"),
        (
            lambda manifest: manifest["parts"]["mids"]["files"].update({"../x": {"bytes": 1, "sha256": ""}}),
            "leads out",
        ),
        (
            lambda manifest: manifest["parts"]["mids"]["files"].update({"/x": {"bytes": 1, "sha256": ""}}),
            "leads out",
        ),
    ],
)
def test_a_foreign_manifest_is_refused(small: Bundle, edit: Callable[[dict], object], complaint: str) -> None:
    with pytest.raises(BundleError, match=complaint):
        Bundle.open(edited(small, edit))


def test_what_is_no_json_is_refused(small: Bundle) -> None:
    (small.path / "bundle.json").write_text("no json")
    with pytest.raises(BundleError, match=r"bundle\.json is not the manifest of a bundle"):
        Bundle.open(small.path)


def test_an_unfinished_folder_cannot_be_described(small: Bundle) -> None:
    shutil.rmtree(small.text)
    with pytest.raises(BundleError, match="nothing lies in text"):
        write_bundle_json(small.path, provenance={})
