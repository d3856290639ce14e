"""An engine that is asked about more than it may answer at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ffaa_core.bundle import Bundle
from serve.app import AT_HAND
from tests.fixtures.service import running_service, until

FACES = 2


@pytest.mark.slow
def test_the_next_images_wait_at_the_engine_itself(
    demo_bundle: Bundle, picture: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = tmp_path / "hold"
    monkeypatch.setenv("FFAA_TEST_HOLD", str(hold))
    with running_service(
        demo_bundle,
        import_path="tests.serve.scripted:build",
        faces={"mode": "whole_image"},
        engine={"max_concurrent_faces": FACES},
    ) as service:
        hold.touch()
        n_images = AT_HAND * FACES - 1  # and a place for who asks how many there are
        with service.client() as client, ThreadPoolExecutor(n_images) as senders:
            waiting = [
                senders.submit(client.post, "/v1/score", files={"file": picture}) for _ in range(n_images)
            ]
            until(lambda: service.under_way() == n_images > FACES, 60)
            hold.unlink()
        assert [reply.result().status_code for reply in waiting] == [200] * n_images
