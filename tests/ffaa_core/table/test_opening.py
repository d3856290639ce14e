"""Making and opening a verdict table: what is one, and what is not."""

import json

import pytest

from ffaa_core.errors import ConfigurationError, TableError
from ffaa_core.table import VerdictTable


def test_reading_needs_a_table(tmp_path):
    with pytest.raises(TableError, match="no verdict table"):
        VerdictTable.open(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"1")
    for create in (True, False):
        with pytest.raises(TableError, match=r"holiday\.jpg"):
            VerdictTable.open(str(tmp_path), create=create)
    with pytest.raises(ConfigurationError):
        VerdictTable.open("gs://bucket/out", create=True)


def test_a_table_of_a_later_version_is_refused(table):
    table.store.write("ffaa-table.json", json.dumps({"format": "ffaa-verdict-table", "version": 99}).encode())
    with pytest.raises(TableError, match="version 99"):
        VerdictTable.open(table.uri)
