"""What each verb of the S3 store makes of an answer that is no success, and how long it tries."""

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.utils import ContainerMetadataFetcher

from ffaa_core.errors import (
    AlreadyExistsError,
    ConfigurationError,
    FFAAError,
    JobError,
    NotFoundError,
    StorageError,
)
from ffaa_core.storage import open_store, patience
from ffaa_core.storage.s3 import S3Store
from tests.fixtures.s3 import S3Server, use

DATA = bytes(range(200))
LISTING = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
CUT, HANG_UP, STALL = "a body cut short", "no answer at all", "an answer that never comes"
NO_S3 = "a web page"

Answer = str | tuple[int, str]


class ScriptedServer(ThreadingHTTPServer):
    """An S3 server with `DATA` under every key, which gives the answers of a script first.

    An answer is a status with an S3 error code, or one of the words above; the last one stays if `for_ever`.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Answer] = []
        self.for_ever = False
        self.n_requests = 0

    def next_answer(self) -> Answer | None:
        self.n_requests += 1
        if self.for_ever and len(self.script) == 1:
            return self.script[0]
        return self.script.pop(0) if self.script else None


class Handler(BaseHTTPRequestHandler):
    server: ScriptedServer
    protocol_version = "HTTP/1.1"  # or whoever writes waits a second for "100 Continue"
    disable_nagle_algorithm = True  # or the body waits until the head is acknowledged

    def serve(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.next_answer()
        if answer in (HANG_UP, STALL):
            time.sleep(10 if answer == STALL else 0)
            self.close_connection = True
        elif answer == NO_S3:
            self.send_response(200)
            self.send_header("Content-Length", "20")
            self.end_headers()
            self.wfile.write(b"<html><p>Welcome<br>")
        elif isinstance(answer, tuple):
            status, code = answer
            self.answer(status, f"<Error><Code>{code}</Code><Message>scripted</Message></Error>".encode())
        elif self.command in ("PUT", "DELETE"):
            assert sent or self.command == "DELETE"
            self.answer(200, b"")
        elif "list-type=2" in self.path:
            self.answer(200, LISTING.encode())
        else:
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
            data = DATA[int(wanted[1]) : int(wanted[2]) + 1] if wanted else DATA
            self.answer(206 if wanted else 200, data, 20 if answer == CUT else len(data))

    do_GET = do_HEAD = do_PUT = do_DELETE = serve  # noqa: N815

    def answer(self, status: int, data: bytes, sent: int = 1 << 20) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", '"v1"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:sent])
        self.close_connection = sent < len(data)

    def log_message(self, *_: object) -> None:
        pass


class Identity(BaseHTTPRequestHandler):
    """What gives a container its credentials, as on EKS and ECS; it fails at first."""

    left_to_fail = 0

    def do_GET(self) -> None:
        failing = Identity.left_to_fail > 0
        Identity.left_to_fail -= failing
        credentials = {"AccessKeyId": "x", "SecretAccessKey": "x", "Token": "x"}
        credentials["Expiration"] = (datetime.now(UTC) + timedelta(hours=6)).isoformat()
        self.send_response(500 if failing else 200)
        self.end_headers()
        self.wfile.write(b"" if failing else json.dumps(credentials).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def one_server() -> Iterator[ScriptedServer]:
    """One for all tests: a client takes half a second to make."""
    with ScriptedServer() as server, pytest.MonkeyPatch.context() as monkeypatch:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        use(S3Server(f"http://127.0.0.1:{server.server_port}", "x", "x"), monkeypatch)
        yield server
        server.shutdown()


@pytest.fixture
def server(one_server: ScriptedServer) -> ScriptedServer:
    one_server.script, one_server.for_ever, one_server.n_requests = [], False, 0
    return one_server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, which pass at once."""
    waits: list[float] = []
    clock = SimpleNamespace(sleep=waits.append, monotonic=lambda: sum(waits))
    monkeypatch.setattr(patience, "time", clock)
    return waits


@pytest.fixture
def store(server: ScriptedServer, waits: list[float]) -> S3Store:
    store = open_store("s3://bucket")
    assert isinstance(store, S3Store)
    return store


def upload(store: S3Store) -> None:
    store.write("key", Path(__file__))


VERBS: dict[str, Callable[[S3Store], Any]] = {
    "read": lambda store: store.read("key").data == DATA,
    "read some": lambda store: store.read("key", limit=150).data == DATA[:150],
    "read a range": lambda store: store.read_range("key", 10, 100, "v1") == DATA[10:110],
    "find": lambda store: store.stat("key").size == len(DATA),
    "list": lambda store: list(store.list()) == [],
    "create": lambda store: store.create("key", b"1") is None,
    "write": lambda store: store.write("key", b"1") is None,
    "upload": lambda store: upload(store) is None,
    "delete": lambda store: store.delete("key") is None,
}
READS = ("read", "read some", "read a range")
WRITES = ("create", "write", "upload", "delete")

SLOW_DOWN, BROKEN, THROTTLED = (503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")
DENIED, CONFLICT, EXISTS = (403, "AccessDenied"), (409, "Conflict"), (412, "PreconditionFailed")
NO_KEY, NO_BUCKET, SKEWED = (404, "NoSuchKey"), (404, "NoSuchBucket"), (403, "RequestTimeTooSkewed")


@pytest.mark.parametrize("answer", [SLOW_DOWN, BROKEN, THROTTLED, HANG_UP])
@pytest.mark.parametrize("verb", VERBS)
def test_what_passes_is_tried_again(
    verb: str, answer: Answer, store: S3Store, server: ScriptedServer, waits: list[float]
) -> None:
    server.script = [answer] * 5
    assert VERBS[verb](store)
    assert (server.n_requests, len(waits)) == (6, 5)


def test_a_request_that_arrived_too_slowly_is_sent_again(store: S3Store, server: ScriptedServer) -> None:
    server.script = [(400, "RequestTimeout")]
    upload(store)
    assert server.n_requests == 2


@pytest.mark.parametrize("code", ["Throttling", "ThrottlingException", "IDPCommunicationError"])
def test_what_asks_for_patience_by_a_400_is_tried_again(
    code: str, store: S3Store, server: ScriptedServer
) -> None:
    server.script = [(400, code)] * 2
    assert VERBS["read"](store)
    assert server.n_requests == 3


def test_credentials_that_do_not_come_at_first_are_asked_for_again(
    server: ScriptedServer, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Identity) as identity:
        threading.Thread(target=identity.serve_forever, daemon=True).start()
        monkeypatch.setenv(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{identity.server_port}/credentials"
        )
        Identity.left_to_fail = 4  # botocore itself asks three times
        assert VERBS["read"](cast(S3Store, open_store("s3://bucket-of-a-workload")))
        identity.shutdown()
    assert len(waits) == 1
    assert Identity.left_to_fail == 0


def test_many_objects_are_read_in_order_and_few_before_they_are_wanted(
    store: S3Store, server: ScriptedServer
) -> None:
    asked = []

    def keys() -> Iterator[str]:
        for number in range(1000):
            asked.append(number)
            yield f"{number}"

    read = store.read_many(keys())
    assert [next(read) for _ in range(3)] == [DATA] * 3
    assert len(asked) < 100
    read.close()
    server.script = [(403, "AccessDenied")] * 100
    with pytest.raises(ConfigurationError):
        list(store.read_many(keys()))
    assert len(asked) < 200


def test_an_endpoint_that_redirects_whatever_it_is_asked_is_an_error_of_configuration(
    store: S3Store, server: ScriptedServer
) -> None:
    server.script, server.for_ever = [(301, "PermanentRedirect")], True
    for verb in VERBS:
        with pytest.raises(ConfigurationError, match=r"redirects every request"):
            VERBS[verb](store)


@pytest.mark.parametrize("verb", READS)
def test_a_body_that_is_cut_short_is_read_again(verb: str, store: S3Store, server: ScriptedServer) -> None:
    server.script = [CUT, CUT]
    assert VERBS[verb](store)
    assert server.n_requests == 3


@pytest.mark.parametrize(
    ("verb", "answer"),
    [*((verb, SLOW_DOWN) for verb in VERBS), *((verb, CUT) for verb in READS), ("create", CONFLICT)],
)
def test_what_does_not_pass_is_a_storage_error_after_bounded_and_jittered_waits(
    verb: str, answer: Answer, store: S3Store, server: ScriptedServer, waits: list[float]
) -> None:
    server.script, server.for_ever = [answer], True
    with pytest.raises(StorageError, match=r"cannot .* s3://bucket") as failed:
        VERBS[verb](store)
    assert failed.value.exit_code == 75
    assert patience.PATIENCE_S - patience.LONGEST_WAIT <= sum(waits) <= patience.PATIENCE_S
    assert max(waits) <= patience.LONGEST_WAIT
    assert len(set(waits)) == len(waits) == server.n_requests - 1
    assert waits[0] < patience.FIRST_WAIT


@pytest.mark.parametrize("n", [1, 3])
def test_a_conflict_on_a_conditional_write_is_tried_again(
    n: int, store: S3Store, server: ScriptedServer
) -> None:
    server.script = [CONFLICT] * n
    store.create("key", b"1")
    assert server.n_requests == n + 1


def test_a_write_whose_answer_got_lost_finds_its_own_object(store: S3Store, server: ScriptedServer) -> None:
    server.script = [BROKEN, EXISTS]
    with pytest.raises(AlreadyExistsError):
        store.create("key", b"1")


@pytest.mark.parametrize(
    ("verbs", "answer", "error", "told"),
    [
        (("find",), (403, ""), ConfigurationError, "credentials do not allow"),
        (("list", *READS, *WRITES), DENIED, ConfigurationError, "credentials do not allow"),
        (("list", *READS, *WRITES), SKEWED, ConfigurationError, "clock of this machine"),
        (READS, NO_KEY, NotFoundError, "s3://bucket/key does not exist"),
        (("find",), (404, ""), NotFoundError, "s3://bucket/key does not exist"),
        (("list", *READS, *WRITES), NO_BUCKET, ConfigurationError, "bucket does not exist"),
        (("create",), EXISTS, AlreadyExistsError, "exists already"),
        (("read a range",), EXISTS, StorageError, "changed while it was being read"),
        (("create",), (501, "NotImplemented"), StorageError, "NotImplemented"),
        (("write", "upload"), (400, "EntityTooLarge"), ConfigurationError, "smaller shards"),
    ],
)
def test_what_cannot_pass_is_told_at_once(
    verbs: tuple[str, ...],
    answer: Answer,
    error: type[FFAAError],
    told: str,
    store: S3Store,
    server: ScriptedServer,
    waits: list[float],
) -> None:
    for verb in verbs:
        server.script = [answer]
        with pytest.raises(error, match=told) as failed:
            VERBS[verb](store)
        assert type(failed.value) is error
        assert server.script == waits == []


def test_an_answer_that_never_comes_is_given_up_and_asked_for_again(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(patience.TIMEOUT, "0.2")
    server.script = [STALL]
    begun = time.monotonic()
    assert S3Store("bucket").read("key").data == DATA
    assert time.monotonic() - begun < 8


def test_a_signal_that_arrives_amid_a_request_is_heard(server: ScriptedServer) -> None:
    def stop(*_: object) -> None:
        raise JobError("stopped")

    server.script = [STALL]
    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        with pytest.raises(JobError, match="stopped"):
            S3Store("bucket").read("key")
    finally:
        signal.signal(signal.SIGALRM, former)


def test_storage_that_never_answers_is_told_in_words(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(patience.TIMEOUT, "0.2")
    monkeypatch.setenv(patience.PATIENCE, "0.01")
    server.script, server.for_ever = [STALL], True
    with pytest.raises(StorageError, match=r"cannot find s3://bucket/key: nothing came for 0\.2 s"):
        S3Store("bucket").stat("key")


def test_an_endpoint_that_is_no_s3_server_is_a_storage_error(store: S3Store, server: ScriptedServer) -> None:
    server.script, server.for_ever = [NO_S3], True
    for verb in ("find", "list", "read"):
        with pytest.raises(StorageError, match="s3://bucket"):
            VERBS[verb](store)


def test_real_waits_are_waited(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(patience.PATIENCE, "1")
    server.script, server.for_ever = [SLOW_DOWN], True
    begun = time.monotonic()
    with pytest.raises(StorageError):
        open_store("s3://bucket").read("key")
    assert 0.2 < time.monotonic() - begun < 5
    assert 3 <= server.n_requests <= 40
