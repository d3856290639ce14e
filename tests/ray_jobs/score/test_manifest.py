"""A manifest as INPUT."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffaa_core.errors import ConfigurationError
from tests.ray_jobs.score.test_inputs import uris


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_manifest_lists_addresses_absolute_and_relative_to_itself(tmp_path: Path, suffix: str) -> None:
    addresses = [
        "/data/a b.jpg",
        "s3://bucket/k[1].jpg",
        "near/by.jpg",
    ]
    manifest = tmp_path / f"list{suffix}"
    if suffix == ".csv":
        manifest.write_text("n,image_uri\n" + "".join(f'{i},"{a}"\n' for i, a in enumerate(addresses)))
    else:
        pq.write_table(pa.table({"n": range(3), "image_uri": addresses}), manifest)
    assert uris(manifest) == [*addresses[:2], f"{tmp_path}/near/by.jpg"]


def test_a_manifests_column_can_be_named_and_its_absence_is_told(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("path\n/data/a.jpg\n")
    assert uris(manifest, uri_column="path") == ["/data/a.jpg"]
    with pytest.raises(ConfigurationError, match=r"no column 'image_uri' but path.*--uri-column"):
        uris(manifest)


def test_a_manifest_with_an_empty_address_is_refused(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("image_uri,n\n/data/a.jpg,1\n,2\n")
    with pytest.raises(ConfigurationError, match="row 2: the address is empty"):
        uris(manifest)


def test_numbers_in_a_csv_stay_text(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("image_uri\n007\n")
    assert uris(manifest) == [f"{tmp_path}/007"]


def test_only_the_column_of_addresses_is_looked_at(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("note,image_uri\n" + "1,/a.jpg\n" * 200_000 + "text,/b.jpg\n")
    assert uris(manifest)[-1] == "/b.jpg"


@pytest.mark.parametrize("address", ["https://cdn/x.jpg?X-Amz-Signature=secret", "gs://bucket/x.jpg"])
def test_an_address_that_no_store_serves_is_refused_by_its_row(tmp_path: Path, address: str) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"image_uri\n/data/a.jpg\n{address}\n")
    with pytest.raises(ConfigurationError, match=r"list\.csv, row 2: .* is not supported") as refused:
        uris(manifest)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("content", ["image_uri\n", ""])
def test_a_manifest_without_rows_is_refused(tmp_path: Path, content: str) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(content)
    with pytest.raises(ConfigurationError, match=r"has no (rows|column)"):
        uris(manifest)
