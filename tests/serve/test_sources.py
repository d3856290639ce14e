"""Which addresses are read, and how."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ffaa_core.storage import patience
from serve.problems import ProblemError
from serve.sources import Sources, canonical_prefix
from tests.fixtures.s3 import S3Server, use

ALLOWED = "s3://photos/uploads"

REFUSED = [
    # other schemes, and other spellings of this one
    "file:///etc/passwd",
    "/etc/passwd",
    "photos/uploads/a.jpg",
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "https://photos.s3.amazonaws.com/uploads/a.jpg",
    "http://localhost:8265/api/version",
    "http://[::1]/",
    "http://2130706433/",
    "ftp://photos/uploads/a.jpg",
    "gopher://127.0.0.1:6379/_INFO",
    "data:image/png;base64,AAAA",
    "S3://photos/uploads/a.jpg",
    "s3:photos/uploads/a.jpg",
    "s3:///photos/uploads/a.jpg",
    " s3://photos/uploads/a.jpg",
    "s3://photos/uploads/a.jpg\n",
    "",
    # other buckets and prefixes
    "s3://photos",
    "s3://photos/",
    "s3://photos/uploads",
    "s3://photos/uploads-private/a.jpg",
    "s3://photos/other/a.jpg",
    "s3://photos/Uploads/a.jpg",
    "s3://secrets/uploads/a.jpg",
    "s3://photos.evil.example/uploads/a.jpg",
    "s3://user:password@photos/uploads/a.jpg",
    "s3://photos@169.254.169.254/uploads/a.jpg",
    "s3://photos:80/uploads/a.jpg",
    "s3://169.254.169.254/uploads/a.jpg",
    # ways out of the prefix
    "s3://photos/uploads/",
    "s3://photos/uploads/../secret.jpg",
    "s3://photos/uploads/./../../secrets/a.jpg",
    "s3://photos/uploads/%2e%2e/secret.jpg",
    "s3://photos/uploads/%252e%252e/secret.jpg",
    "s3://photos/uploads/..%2fsecret.jpg",
    "s3://photos/uploads/..\\secret.jpg",
    "s3://photos/uploads/a/..",
    "s3://photos/uploads//a.jpg",
    "s3://photos//uploads/a.jpg",
    "s3://photos/x/../uploads/a.jpg",
    # what a server may cut an address at
    "s3://photos/uploads/a\x00.jpg",
    "s3://photos/uploads/a.jpg\r\nHost: evil.example",
    "s3://photos/uploads/a\u2028.jpg",
    "s3://photos/uploads/\udcff.jpg",
    "s3://photos/uploads/" + "a" * 4096,
]


def sources(*prefixes: str, max_bytes: int = 1000) -> Sources:
    return Sources([canonical_prefix(prefix) for prefix in prefixes], max_bytes)


@pytest.mark.parametrize("uri", REFUSED)
def test_an_address_that_is_not_below_a_prefix_is_refused(uri: str) -> None:
    with pytest.raises(ProblemError) as refused:
        sources(ALLOWED).check(uri)
    assert (refused.value.status, refused.value.kind) == (422, "uri-refused")


@pytest.mark.parametrize(
    "key", ["a.jpg", "2026/11/a b.jpg", "[1].jpg", "ü.jpg", "100%.jpg", "..a.jpg", "a..jpg", "a?x=1#y.jpg"]
)
def test_any_other_name_below_a_prefix_is_taken_as_it_is(key: str) -> None:
    sources(ALLOWED).check(f"{ALLOWED}/{key}")


def test_without_prefixes_every_address_is_refused() -> None:
    with pytest.raises(ProblemError):
        sources().check(f"{ALLOWED}/a.jpg")


@pytest.mark.parametrize(
    "prefix",
    ["", "/data", "file:///data", "http://host/", "s3://", "s3://UPPER/x", "s3://photos/../x", "s3://a b/"],
)
def test_a_prefix_that_is_no_place_on_s3_is_a_mistake(prefix: str) -> None:
    with pytest.raises(ValueError, match="s3://bucket/prefix"):
        canonical_prefix(prefix)


@pytest.mark.parametrize(
    "prefix", ["s3://photos", "s3://photos/", "s3://photos/uploads", "s3://photos/uploads/"]
)
def test_a_prefix_is_a_folder(prefix: str) -> None:
    assert canonical_prefix(prefix) == prefix.rstrip("/") + "/"


async def test_objects_are_read_within_the_limit(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ffaa_core.storage import open_store

    use(moto_server, monkeypatch)
    folder = f"s3://{moto_server.fresh_bucket()}/uploads"
    store = open_store(folder)
    store.write("fits", b"x" * 1000)
    store.write("too large", b"x" * 1001)
    images = sources(folder)
    assert await images.read(f"{folder}/fits") == b"x" * 1000
    for name, status in [("too large", 413), ("nothing", 404)]:
        with pytest.raises(ProblemError) as refused:
            await images.read(f"{folder}/{name}")
        assert refused.value.status == status


class _Redirect(BaseHTTPRequestHandler):
    """Sends every GET to `elsewhere`, and knows no region of any bucket."""

    elsewhere = ""

    def do_GET(self) -> None:
        self.send_response(307)
        self.send_header("Location", self.elsewhere)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


class _Secret(BaseHTTPRequestHandler):
    """Counts who comes."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.send_header("ETag", '"x"')
        self.end_headers()
        self.wfile.write(b"secret")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def redirecting() -> Iterator[ThreadingHTTPServer]:
    """An S3 endpoint that redirects every request to another server."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (_Redirect, _Secret)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    _Redirect.elsewhere = f"http://127.0.0.1:{servers[1].server_address[1]}/secret"
    _Secret.asked = 0
    yield servers[0]
    for server in servers:
        server.shutdown()
        server.server_close()


async def test_no_redirect_is_followed(
    redirecting: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(S3Server(f"http://127.0.0.1:{redirecting.server_address[1]}", "test", "test"), monkeypatch)
    monkeypatch.setenv("FFAA_STORAGE_PATIENCE", "0.01")
    with pytest.raises(ProblemError) as refused:
        await sources(ALLOWED).read(f"{ALLOWED}/a.jpg")
    assert refused.value.status == 503
    assert "127.0.0.1" not in refused.value.detail
    assert _Secret.asked == 0


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """The lines of the service's log, which hands nothing on to the root's."""
    log = logging.getLogger("ray.serve")
    log.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records if record.name == log.name]
    log.removeHandler(caplog.handler)


async def test_the_log_tells_the_kind_of_a_failure_and_no_address(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    use(moto_server, monkeypatch)
    with pytest.raises(ProblemError) as refused:
        await sources("s3://no-such-bucket/uploads").read("s3://no-such-bucket/uploads/private.jpg")
    assert refused.value.status == 503
    assert set(logged()) == {"an image cannot be read: ConfigurationError NoSuchBucket"}


def test_an_address_that_is_waited_for_is_not_told(
    monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(patience, "_silence", patience._Silence())
    sources(ALLOWED)
    patience._silence.goes_on(time.monotonic() - 60, f"cannot read {ALLOWED}/private.jpg")
    assert set(logged()) == {"storage does not answer; it is waited for"}
    assert "private.jpg" not in "".join(capfd.readouterr())
