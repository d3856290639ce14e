"""The same job on a real S3 server leaves the same table."""

import shutil
from pathlib import Path
from typing import Any

from ffaa_core.storage import open_store
from ffaa_core.table import VerdictTable
from tests.fixtures.command import FAST, Ffaa
from tests.fixtures.s3 import S3Server, use

UPLOADS = (
    "001_img10.jpg",
    "005_img16.jpg",
    "075_truncated.jpg",
    "163_png_decompression_dos.png",
    "234_zero_bytes.jpg",
    "245_bomb_header_only.png",
)
ODD_NAMES = (
    "a[1].jpg",
    "with space & plus+.jpg",
    "ünïcode.jpg",
    "n" * 200 + ".jpg",
    "100%.jpg",
    "below/deeper.jpg",
)
OPTIONS = ("--shard-size", "5", "--dtype", "float32", *FAST)
OF_THE_PLACE = ("image_uri", "planned_version", "image_version", "scored_at")


def rows_of(output: str, images: str) -> list[dict[str, Any]]:
    """The table's rows by image, with names relative to INPUT and without what differs from place to
    place.
    """
    rows = [row for batch in VerdictTable.open(output).rows() for row in batch.to_pylist()]
    return [
        {"name": row["image_uri"].removeprefix(images + "/")}
        | {name: value for name, value in row.items() if name not in OF_THE_PLACE}
        for row in sorted(rows, key=lambda row: str(row["image_uri"]))
    ]


def test_s3_and_local_disk_hold_the_same_table(
    ffaa: Ffaa, shared_faces: Path, tmp_path: Path, ceph_server: S3Server, monkeypatch: Any
) -> None:
    use(ceph_server, monkeypatch)
    images, output = tmp_path / "images", tmp_path / "table"
    for name in UPLOADS:
        images.mkdir(exist_ok=True)
        shutil.copy(shared_faces / "uploads" / name, images / name)
    for name in ODD_NAMES:
        (images / name).parent.mkdir(exist_ok=True)
        shutil.copy(shared_faces / "uploads" / UPLOADS[0], images / name)
    bucket = f"s3://{ceph_server.fresh_bucket()}"
    store = open_store(f"{bucket}/in")
    for path in images.rglob("*.*"):
        store.write(str(path.relative_to(images)), path)

    on_s3 = ffaa.with_environment(**ceph_server.environment())
    local = ffaa("score", images, output, *OPTIONS)
    remote = on_s3("score", f"{bucket}/in", f"{bucket}/table", *OPTIONS)

    assert remote.returncode == local.returncode == 3, local.stderr + remote.stderr
    assert on_s3("table", "verify", f"{bucket}/table").returncode == 0
    expected = rows_of(str(output), str(images))
    assert len(expected) == len(UPLOADS) + len(ODD_NAMES)
    assert rows_of(f"{bucket}/table", f"{bucket}/in") == expected
    again = on_s3("score", f"{bucket}/in", f"{bucket}/table", *OPTIONS)
    assert again.returncode == 3
    assert "nothing to do" in again.stdout
