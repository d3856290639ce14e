"""What the documents tell users of the service to type is typed, block by block, and works."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from skimage import data

from tests.fixtures.s3 import S3Server, use
from tests.fixtures.service import KEY, RunningService
from tests.images import png

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INTERPRETERS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
ADDRESS, UPLOADS = "localhost:8000", "s3://uploads/2026"
PHOTO = png(data.astronaut())


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of each block to be run. One without a language is how the service is started."""
    for language, block in BLOCK.findall(text):
        if language:
            yield language, block
        else:
            assert "ffaa serve " in block, block


def typed(text: str, folder: Path, running: RunningService, uploads: str) -> list[str]:
    """What the blocks print when they are run one after the other; an image id that is shown is used next."""
    here = {ADDRESS: urlsplit(running.url).netloc, UPLOADS: uploads}
    (folder / "photo.jpg").write_bytes(PHOTO)
    (folder / ".curlrc").write_text("fail-with-body\nno-progress-meter\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"KEY": KEY, "CURL_HOME": str(folder), "PATH": path}
    printed = []
    for language, block in blocks(text):
        for documented, real in here.items():
            block = block.replace(documented, real)
        done = subprocess.run(
            [*INTERPRETERS[language], block], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{block}{done.stdout}{done.stderr}"
        printed.append(done.stdout)
        if shown := re.search(r'"image_id": ?"(\w+)"', done.stdout):
            environment["IMAGE_ID"] = shown[1]
    return printed


def test_the_readme_leads_from_an_upload_through_its_verdict_to_a_conversation(
    running: RunningService, tmp_path: Path
) -> None:
    (section,) = re.findall(r"^### Over HTTP$(.*?)^##", (ROOT / "README.md").read_text(), re.M | re.S)
    scored, said = (json.loads(printed) for printed in typed(section, tmp_path, running, UPLOADS))
    assert scored["status"] == "scored"
    assert (said["object"], said["ffaa"]["image_id"]) == ("chat.completion", scored["image_id"])
    assert said["ffaa"]["verdict"] == scored["verdict"] in ("real", "fake")
    assert said["choices"][0]["message"]["content"]


def test_the_page_of_the_service_leads_from_an_upload_to_conversations(
    running: RunningService,
    tmp_path: Path,
    s3_uploads: str,
    moto_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ffaa_core.storage import locate

    use(moto_server, monkeypatch)
    store, key = locate(f"{s3_uploads}/photo.jpg")
    store.write(key, PHOTO)
    page = (ROOT / "docs" / "service.md").read_text()
    made, scored, from_python, from_shell = typed(page, tmp_path, running, s3_uploads)
    assert "FFAA_API_KEYS, for the service" in made
    assert scored.count('"status":"scored","status_detail"') == 2
    verdict, the_same, *words = from_python.split()
    assert verdict == the_same in ("real", "fake")
    assert words
    assert '"object":"chat.completion"' in from_shell
