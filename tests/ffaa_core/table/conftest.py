"""Tables for tests: one on local disk, and one on every store."""

import pytest

from ffaa_core.table import VerdictTable
from tests.fixtures.s3 import use


@pytest.fixture
def table(tmp_path):
    return VerdictTable.open(str(tmp_path / "out"), create=True)


@pytest.fixture(params=["local", "moto", "ceph"])
def any_table(request, tmp_path, monkeypatch):
    if request.param == "local":
        return VerdictTable.open(str(tmp_path / "out"), create=True)
    server = request.getfixturevalue(f"{request.param}_server")
    use(server, monkeypatch)
    return VerdictTable.open(f"s3://{server.fresh_bucket()}/out", create=True)
