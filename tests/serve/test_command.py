"""`ffaa serve`, with scripted models where it runs."""

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ffaa_core import cli
from ffaa_core.bundle import Bundle
from serve.keys import VARIABLE, Keys, digest
from tests.fixtures.service import running_service, until

SCRIPTED = "tests.serve.scripted:build"


@pytest.fixture
def bundle_chosen(demo_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFAA_BUNDLE", str(demo_bundle.path))
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.usefixtures("bundle_chosen")
def test_without_keys_it_does_not_start_and_says_how_to_make_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve"]) == 2
    assert "--make-key" in capsys.readouterr().err


def test_a_key_that_it_makes_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--make-key"]) == 0
    key, its_digest = (line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines())
    assert Keys([its_digest]).owner(f"Bearer {key}") == its_digest == digest(key)


@pytest.mark.usefixtures("bundle_chosen")
def test_a_port_that_is_taken_is_told_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    environment = dict(os.environ)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--anonymous", "--port", str(port)]) == 2
    assert f"port {port}" in capsys.readouterr().err
    assert dict(os.environ) == environment


@pytest.mark.slow
def test_a_signal_lets_it_finish_what_it_has(
    demo_bundle: Bundle, picture: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = tmp_path / "hold"
    monkeypatch.setenv("FFAA_TEST_HOLD", str(hold))
    with (
        running_service(
            demo_bundle,
            import_path=SCRIPTED,
            faces={"mode": "whole_image"},
            service={"deadline_seconds": 300},
        ) as service,
        service.client() as client,
        ThreadPoolExecutor() as senders,
    ):
        hold.touch()
        waiting = senders.submit(client.post, "/v1/score", files={"file": picture})
        until((tmp_path / "held").exists, 60)
        service.process.send_signal(signal.SIGTERM)
        until(lambda: client.get("/readyz").status_code == 503, 60)
        assert client.post("/v1/score", files={"file": picture}).status_code == 503
        assert not waiting.done()
        hold.unlink()
        assert waiting.result().status_code == 200
        # The fixture asserts the exit code 0, and that no process is left.
