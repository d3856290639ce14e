"""The option comes before the environment, the environment before the demo bundle, which is made once."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ffaa_core.bundle import Bundle, resolve, resolve_bundle, resolve_manifest
from ffaa_core.bundle.bundle import write_bundle_json
from ffaa_core.errors import BundleError


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("FFAA_BUNDLE", "FFAA_BUNDLE_SHA256"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def a_bundle(directory: Path) -> Bundle:
    for part in ("mllm", "mids", "vision", "text"):
        (directory / part).mkdir(parents=True)
        (directory / part / "file").write_text(part)
    return write_bundle_json(directory, provenance={})


def test_the_option_comes_before_the_environment(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = a_bundle(tmp_path / "first"), a_bundle(tmp_path / "second")
    monkeypatch.setenv("FFAA_BUNDLE", str(second.path))
    assert resolve_bundle(str(first.path)) == first
    assert resolve_bundle(None) == second
    assert capsys.readouterr().err == ""
    assert not own_cache.exists()


def test_a_bundle_asked_for_and_absent_is_not_replaced_by_the_demo(own_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        resolve_bundle(str(tmp_path / "absent"))
    assert not own_cache.exists()


def test_the_environments_bundle_must_have_the_environments_digest_and_no_other_bundle_must(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, other = a_bundle(tmp_path / "bundle"), a_bundle(tmp_path / "other")
    found = hashlib.sha256((bundle.path / "bundle.json").read_bytes()).hexdigest()
    monkeypatch.setenv("FFAA_BUNDLE", str(bundle.path))
    for pin in ("", found):
        monkeypatch.setenv("FFAA_BUNDLE_SHA256", pin)
        assert resolve_bundle(None) == bundle
        assert resolve_manifest(None) == (str(bundle.path), bundle.manifest)
    monkeypatch.setenv("FFAA_BUNDLE_SHA256", "0" * 64)
    for resolved in (resolve_bundle, resolve_manifest):
        with pytest.raises(BundleError, match=f"{found}, not {'0' * 64}.*FFAA_BUNDLE_SHA256") as error:
            resolved(None)
        assert error.value.exit_code == 2
    assert resolve_bundle(str(other.path)) == other
    assert resolve_manifest(str(other.path)) == (str(other.path), other.manifest)


def test_two_processes_at_once_get_one_whole_demo_bundle_and_a_warning(
    own_cache: Path, demo_bundle: Bundle
) -> None:
    code = "from ffaa_core.bundle import resolve_bundle; b = resolve_bundle(None); b.verify(); print(b.path)"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    paths = {out.strip() for out, _ in outputs}
    assert len(paths) == 1
    assert Bundle.open(paths.pop()).digests == demo_bundle.digests
    errors = [err for _, err in outputs]
    assert sum("making the demo bundle" in err for err in errors) == 1
    assert all("verdicts mean nothing" in err for err in errors)


def test_changed_code_makes_its_own_demo_bundle(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_make_demo", a_bundle)
    before = resolve_bundle(None)
    assert resolve_bundle(None) == before
    monkeypatch.setattr(resolve, "_recipe", lambda: "another")
    assert resolve_bundle(None).path != before.path
