"""Reading Parquet: columns, damage, and an end of the process that Arrow's threads cannot spoil."""

import ast
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffaa_core.parquet import read_batches, read_table

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"n": range(10), "text": [f"row {n}" for n in range(10)]}), path)
    return path


def test_batches_are_of_the_size_and_columns_asked_for(path: Path) -> None:
    with path.open("rb") as file:
        batches = list(read_batches(file, columns=["n"], size=4))
    assert [batch.to_pydict() for batch in batches] == [
        {"n": [0, 1, 2, 3]},
        {"n": [4, 5, 6, 7]},
        {"n": [8, 9]},
    ]


def test_a_table_is_read_from_a_file_and_from_its_bytes(path: Path) -> None:
    with path.open("rb") as file:
        assert read_table(file) == read_table(path.read_bytes()) == pq.read_table(path)


def test_damage_is_an_arrow_error(path: Path) -> None:
    with pytest.raises(pa.ArrowException):
        read_table(path.read_bytes()[:-20])


def test_nothing_else_in_the_packages_reads_parquet_rows() -> None:
    """Any other way could leave a Python file in the hands of Arrow's threads when the process ends."""
    readers = {"read_table", "ParquetFile", "ParquetDataset", "iter_batches", "open_csv", "read_csv"}
    found = {
        f"{path.relative_to(ROOT)}: {node.attr}"
        for package in ("ffaa_core", "ray_jobs", "serve")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in readers
    }
    assert found == {"ffaa_core/parquet.py: ParquetFile", "ffaa_core/parquet.py: iter_batches"}
