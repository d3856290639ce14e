"""One contract, held by every store: local disk, moto's S3 and Ceph's."""

import io
import os
import pickle
import threading
import uuid

import pytest

from ffaa_core.errors import AlreadyExistsError, ConfigurationError, NotFoundError, StorageError
from ffaa_core.storage import locate, open_store
from ffaa_core.storage.local import TEMPORARY
from tests.fixtures.s3 import use

OPAQUE = [
    "a[1].jpg",
    "a b.jpg",
    "100%.jpg",
    "ä/ö/ü.jpg",
    "#?&=+.jpg",
    "x" * 200,
    "*.jpg",
    "%41.jpg",
    "tab\tnew\nline.jpg",
]


@pytest.fixture(params=["local", "moto", "ceph"])
def root(request, tmp_path, monkeypatch):
    """URI of an empty store of each kind."""
    if request.param == "local":
        return str(tmp_path / "store")
    server = request.getfixturevalue(f"{request.param}_server")
    use(server, monkeypatch)
    return f"s3://{server.fresh_bucket()}/some/prefix"


@pytest.fixture
def store(root):
    return open_store(root)


def test_what_is_written_is_read(store, tmp_path):
    store.write("a/data", b"12345")
    (tmp_path / "file").write_bytes(b"from a file")
    store.write("b/data", tmp_path / "file")
    assert store.read("a/data").data == b"12345"
    assert store.read("b/data").data == b"from a file"


def test_reading_tells_the_version_that_listing_told(store):
    store.write("data", b"12345")
    (info,) = store.list()
    content = store.read("data")
    assert (content.version, content.size) == (info.version, info.size) == (store.stat("data").version, 5)


def test_other_content_has_another_version(store):
    store.write("data", b"1")
    before = store.read("data").version
    store.write("data", b"22")
    assert store.read("data").version != before


def test_at_most_the_limit_is_read(store):
    store.write("data", b"12345")
    content = store.read("data", limit=3)
    assert (content.data, content.size) == (b"123", 5)


def test_a_reader_seeks(store):
    store.write("data", bytes(range(256)) * 1000)
    with store.open("data") as file:
        file.seek(-256, os.SEEK_END)
        assert file.read() == bytes(range(256))
        file.seek(1)
        assert file.read(2) == b"\x01\x02"


def test_text_is_read_from_s3_by_the_megabyte(moto_server, monkeypatch):
    from ffaa_core.storage import s3

    use(moto_server, monkeypatch)
    store = open_store(f"s3://{moto_server.fresh_bucket()}")
    store.write("text", b"line\n" * 500_000)
    asked = []
    read = s3.S3Store.read_range
    monkeypatch.setattr(s3.S3Store, "read_range", lambda *args: asked.append(args[3]) or read(*args))
    with store.open("text") as file:
        assert sum(1 for _ in io.TextIOWrapper(file)) == 500_000
    assert len(asked) == 3


def test_missing_objects_are_not_found(store):
    for verb in (store.read, store.stat, store.open):
        with pytest.raises(NotFoundError, match="nothing-here"):
            verb("nothing-here")
    assert not store.exists("nothing-here")
    assert list(store.list("nothing/")) == list(store.folders("nothing/")) == []


def test_creating_twice_is_refused_and_changes_nothing(store):
    store.create("runs/1/marker", b"first")
    with pytest.raises(AlreadyExistsError):
        store.create("runs/1/marker", b"second")
    assert store.read("runs/1/marker").data == b"first"


def test_what_is_deleted_is_gone_and_may_be_created_again(store):
    for key in ("a/1", "a/10", "a/2"):
        store.create(key, b"first")
    store.delete("a/1")
    assert [info.key for info in store.list()] == ["a/10", "a/2"]
    with pytest.raises(NotFoundError):
        store.read("a/1")
    store.create("a/1", b"second")
    assert store.read("a/1").data == b"second"


def test_deleting_what_is_not_there_is_no_error(store):
    store.write("a", b"1")
    for key in ("nothing-here", "no/such/folder", "a/below-an-object"):
        store.delete(key)
    assert [info.key for info in store.list()] == ["a"]


def test_of_eight_racing_writers_exactly_one_creates(root):
    store = open_store(root)
    for n in range(20):
        key, gate, winners = f"race/{n}", threading.Barrier(8), []

        def write(me, key=key, gate=gate, winners=winners):
            gate.wait()
            try:
                store.create(key, me)
            except AlreadyExistsError:
                return
            winners.append(me)

        threads = [threading.Thread(target=write, args=(uuid.uuid4().bytes,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert winners == [store.read(key).data]


def test_listing_is_sorted_and_by_prefix(store):
    for key in ("b", "a/2", "a/1", "a-b", "a/b/3", "ab"):
        store.write(key, b"")
    assert [info.key for info in store.list()] == ["a-b", "a/1", "a/2", "a/b/3", "ab", "b"]
    assert [info.key for info in store.list("a/")] == ["a/1", "a/2", "a/b/3"]
    assert [info.key for info in store.list("a")] == ["a-b", "a/1", "a/2", "a/b/3", "ab"]
    assert list(store.folders("")) == ["a"]
    assert list(store.folders("a/")) == ["b"]


def test_listing_goes_on_after_the_first_page(store, monkeypatch):
    from ffaa_core.storage import s3

    monkeypatch.setattr(s3, "PAGE", 2)
    keys = [f"{i}/data" for i in range(7)]
    for key in keys:
        store.write(key, b"")
    assert [info.key for info in store.list()] == keys
    assert list(store.folders("")) == [str(i) for i in range(7)]


def test_names_are_opaque(store, request):
    moto = "moto" in request.node.name  # its routes know no line breaks
    keys = [key for key in OPAQUE if not (moto and "\n" in key)]
    for key in keys:
        store.write(key, key.encode())
    listed = list(store.list())
    assert sorted(info.key for info in listed) == sorted(keys)
    for info in listed:
        there, key = locate(info.uri)
        assert there.uri_of(key) == info.uri
        assert there.read(key).data == info.key.encode()


def test_many_small_objects_are_read_in_order(store):
    keys = [f"m/{i}" for i in range(30)]
    for key in keys:
        store.write(key, key.encode())
    assert list(store.read_many(keys)) == [key.encode() for key in keys]


def test_only_what_is_missing_is_created(store):
    store.create("m/7", b"first")
    store.create_missing((f"m/{i}", b"second") for i in range(30))
    assert {info.key: store.read(info.key).data for info in store.list()} == {
        f"m/{i}": b"first" if i == 7 else b"second" for i in range(30)
    }


def test_a_store_survives_pickling(store):
    store.write("data", b"1")
    assert pickle.loads(pickle.dumps(store)).read("data").data == b"1"


def test_large_files_arrive_whole_on_s3(ceph_server, monkeypatch, tmp_path):
    use(ceph_server, monkeypatch)
    store = open_store(f"s3://{ceph_server.fresh_bucket()}")
    block = os.urandom(1 << 20)
    with (tmp_path / "large").open("wb") as file:
        for _ in range(130):
            file.write(block)
    store.write("large", tmp_path / "large")
    assert store.stat("large").size == 130 << 20
    with store.open("large") as file:
        file.seek(129 << 20)
        assert file.read() == block


def test_wrong_credentials_are_a_configuration_error(ceph_server, monkeypatch):
    use(ceph_server, monkeypatch)
    bucket = ceph_server.fresh_bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ConfigurationError, match="secret key"):
        list(open_store(f"s3://{bucket}").list())


def test_a_missing_bucket_is_a_configuration_error(ceph_server, monkeypatch):
    use(ceph_server, monkeypatch)
    with pytest.raises(ConfigurationError, match="bucket does not exist"):
        list(open_store("s3://there-is-no-such-bucket").list())


def test_an_error_in_creating_one_of_many_objects_is_told(moto_server, monkeypatch):
    use(moto_server, monkeypatch)
    with pytest.raises(ConfigurationError, match="bucket does not exist"):
        open_store("s3://there-is-no-such-bucket").create_missing([("a", b""), ("b", b"")])


def test_an_endpoint_that_is_down_is_a_storage_error(monkeypatch):
    from ffaa_core import storage
    from ffaa_core.storage import patience

    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(patience.PATIENCE, "0.001")
    storage._s3.cache_clear()
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9"):
        open_store("s3://bucket").read("key")


@pytest.mark.parametrize("uri", ["http://host/x", "gs://bucket", "s3://", ""])
def test_other_kinds_of_uri_are_refused(uri):
    with pytest.raises(ConfigurationError):
        open_store(uri)


def test_local_names_that_are_not_utf8_are_percent_encoded(tmp_path):
    os.makedirs(tmp_path / "in")
    with open(os.fsencode(tmp_path) + b"/in/\xff\xfe %.jpg", "wb") as file:
        file.write(b"1")
    (info,) = open_store(str(tmp_path / "in")).list()
    assert info.uri == f"file://{tmp_path}/in/%FF%FE%20%25.jpg"
    there, key = locate(info.uri)
    assert there.read(key).data == b"1"


def test_local_listing_follows_links_but_no_loops(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "outside").write_bytes(b"12")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "in" / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in" / "sub" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "sub" / "real").write_bytes(b"1")
    store = open_store(str(tmp_path / "in"))
    assert {info.key: info.size for info in store.list()}.items() >= {"link": 2, "sub/real": 1}.items()
    assert [info.key for info in store.list()] == ["dangling", "link", "sub/real"]
    with pytest.raises(NotFoundError):
        store.read("dangling")


def test_local_reading_never_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    store = open_store(str(tmp_path))
    assert [info.key for info in store.list()] == ["pipe"]
    with pytest.raises(StorageError, match="not a regular file"):
        store.read("pipe")


def test_what_a_crashed_local_writer_leaves_is_never_listed(tmp_path):
    store = open_store(str(tmp_path))
    (tmp_path / f"{TEMPORARY}1234").write_bytes(b"half")
    assert list(store.list()) == []


def test_a_full_disk_is_told_plainly(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        store.create("marker", b"1")
    monkeypatch.undo()
    assert not store.exists("marker")
    assert os.listdir(tmp_path) == []


def test_a_deletion_that_is_not_allowed_is_a_configuration_error(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    store.write("data", b"1")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(ConfigurationError, match=r"cannot delete .*data: Permission denied: the permissions"):
        store.delete("data")


def test_a_folder_that_is_a_file_is_a_configuration_error(tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    store = open_store(str(tmp_path / "file"))
    assert not store.exists("marker")
    with pytest.raises(ConfigurationError, match="not a folder"):
        store.create("marker", b"1")
