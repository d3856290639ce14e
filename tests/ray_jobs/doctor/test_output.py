"""What the doctor says of OUTPUT, and that it leaves nothing there."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ffaa_core.errors import ConfigurationError, StorageError
from ffaa_core.storage import open_store
from ffaa_core.storage.base import Content
from ffaa_core.storage.local import LocalStore
from ffaa_core.table import VerdictTable
from ray_jobs.doctor import output
from ray_jobs.doctor.finding import Finding
from ray_jobs.doctor.output import check_output, probes
from tests.fixtures.s3 import S3Server, use


def examined(uri: str) -> list[Finding]:
    with probes(uri) as place:
        return list(check_output(place))


def levels(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, finding.level.value) for finding in found]


WELL = [("output", "ok"), ("output", "ok"), ("race", "ok")]


def test_a_local_disk_does_all_and_has_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert levels(examined(str(tmp_path / "out"))) == WELL
    assert list((tmp_path / "out").iterdir()) == []


def test_folders_made_for_the_probes_go_too(tmp_path: Path) -> None:
    assert levels(examined(str(tmp_path / "not" / "yet"))) == WELL
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    VerdictTable.open(str(tmp_path), create=True)
    examined(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["ffaa-table.json"]


@pytest.mark.parametrize("server", ["moto", "ceph"])
def test_s3_does_all_and_has_nothing_left(
    server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: S3Server = request.getfixturevalue(f"{server}_server")
    use(running, monkeypatch)
    bucket = f"s3://{running.fresh_bucket()}"
    assert levels(examined(f"{bucket}/out")) == WELL
    assert list(open_store(bucket).list()) == []


def test_an_s3_server_that_ignores_the_condition_is_an_error(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto_server, monkeypatch)
    bucket = f"s3://{moto_server.fresh_bucket()}"
    client: Any = open_store(bucket)._client  # type: ignore[attr-defined]
    put = client.put_object
    monkeypatch.setattr(client, "put_object", lambda IfNoneMatch=None, **request: put(**request))  # noqa: N803
    found = examined(bucket)
    assert levels(found)[-1] == ("race", "error")
    assert "8 of 8 racing creators" in found[-1].text
    assert list(open_store(bucket).list()) == []


def test_a_disk_that_checks_before_it_writes_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", os.replace)
    assert levels(examined(str(tmp_path)))[-1] == ("race", "error")


def test_a_file_system_without_hard_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(ConfigurationError, match="no hard links"):
        examined(str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_bucket_is_refused(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    use(moto_server, monkeypatch)
    with pytest.raises(ConfigurationError, match="bucket does not exist"):
        examined("s3://there-is-no-such-bucket/out")


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigurationError, match="not a folder"):
        examined(str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "a file"


def altered(read: Callable[..., Content]) -> Callable[..., Content]:
    return lambda *args, **options: Content(data=b"other", version="1", size=5)


@pytest.mark.parametrize(
    ("verb", "fault", "told"),
    [("read", altered, "reads otherwise"), ("list", lambda _: lambda *_: iter(()), "is not listed")],
)
def test_a_store_that_contradicts_itself_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, fault: Any, told: str
) -> None:
    monkeypatch.setattr(LocalStore, verb, fault(getattr(LocalStore, verb)))
    found = [finding for finding in examined(str(tmp_path)) if finding.check == "output"]
    assert found[0].level == "error"
    assert told in found[0].text


def test_where_nothing_may_be_deleted_one_object_stays_and_is_named(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto_server, monkeypatch)
    bucket = f"s3://{moto_server.fresh_bucket()}"
    store = open_store(bucket)

    def denied(key: str) -> None:
        raise ConfigurationError(f"cannot delete {store.uri_of(key)}: the credentials do not allow it")

    monkeypatch.setattr(store, "delete", denied)
    found = examined(bucket)
    assert levels(found) == [("output", "ok"), ("output", "warning"), ("race", "ok")]
    (left,) = store.list()
    assert left.uri in found[1].text
    assert "s3:DeleteObject" in found[1].advice


def test_little_room_on_a_local_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "LEAST_FREE_BYTES", 1 << 60)
    found = examined(str(tmp_path / "out"))
    assert ("disk", "warning") in levels(found)


def test_probes_of_a_doctor_that_was_killed_are_told_and_disturb_no_table(tmp_path: Path) -> None:
    (tmp_path / "ffaa-doctor-0123" / "runs").mkdir(parents=True)
    (tmp_path / "ffaa-doctor-0123" / "runs" / "plan.json").write_text("{}")
    found = examined(str(tmp_path))
    assert found[0].level == "warning"
    assert str(tmp_path / "ffaa-doctor-0123") in found[0].text
    VerdictTable.open(str(tmp_path), create=True)


def test_probes_go_also_when_the_doctor_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with probes(str(tmp_path)) as place:
            place.store.write(place.object, b"1")
            place.store.write(f"{place.prefix}runs/1/plan.json", b"1")
            raise StorageError("on purpose")

    with pytest.raises(StorageError, match="on purpose"):
        fail()
    assert list(tmp_path.iterdir()) == []
