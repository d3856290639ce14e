"""Ray Serve's own proxy, asked in bytes, with what stands before the gateways in it; models are scripted."""

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from ffaa_core.bundle import Bundle
from serve.proxy_bounds import MARGIN_S
from tests.fixtures.service import RunningService, running_service, until
from tests.serve.asking import problem

pytestmark = pytest.mark.slow  # unit tests have the same without Ray: test_proxy.py

MAX_BYTES = 2**20
BODY_BYTES = MAX_BYTES * 4 // 3 + 64 * 1024
DEADLINE_S = 5


@pytest.fixture(scope="module")
def proxied(demo_bundle: Bundle) -> Iterator[RunningService]:
    """A service whose models are scripted and whose bounds are small, behind Ray Serve's own proxy."""
    with running_service(
        demo_bundle,
        import_path="tests.serve.scripted:build",
        faces={"mode": "whole_image"},
        decode={"max_bytes": MAX_BYTES},
        service={"deadline_seconds": DEADLINE_S},
    ) as service:
        yield service


def exchange(service: RunningService, *lines: bytes, body: bytes = b"") -> httpx.Response:
    """The reply to these bytes as they are."""
    place = urlsplit(service.url)
    request = b"\r\n".join([*lines, b"Host: service", b"Connection: close", b"", body])
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        connection.sendall(request)
        told = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, content = told.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    pairs = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in headers)]
    return httpx.Response(int(status.split()[1]), headers=pairs, content=content)


@pytest.mark.parametrize(
    "header",
    [
        b"X-Request-Id: \xff",
        b"serve_multiplexed_model_id: \xff",
        b"Serve-Multiplexed-Model-Id: \xff",
        b"X-Session-Id: \xff",
        b"x_session_id: \xff",
        b"X-Request-Timeout-Seconds: \xff",
        b"X-Request-Disconnect-Disabled: \xff",
        b"Accept: \xff",
    ],
)
def test_no_header_fails_the_proxy(proxied: RunningService, header: bytes) -> None:
    reply = exchange(proxied, b"GET /healthz HTTP/1.1", header)
    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})
    assert len(reply.headers["X-Request-Id"]) == 36


@pytest.mark.parametrize("given", [b"mine-1", b"<script>", b"a b", b"x" * 129, b"\xff"])
def test_reply_problem_and_log_have_the_same_id(proxied: RunningService, given: bytes) -> None:
    reply = exchange(proxied, b"POST /v1/score HTTP/1.1", b"X-Request-Id: " + given, b"Content-Length: 0")
    assert (reply.status_code, problem(reply)) == (401, "unauthorized")
    (own,) = reply.headers.get_list("X-Request-Id")
    assert own == "mine-1" if given == b"mine-1" else len(own) == 36
    until(lambda: [each for each in proxied.logged() if each["id"] == own], 10)


def test_a_body_that_says_that_it_is_too_long_is_refused_by_the_proxy(proxied: RunningService) -> None:
    length = b"Content-Length: %d" % (BODY_BYTES + 1)
    reply = exchange(proxied, b"POST /v1/score HTTP/1.1", length, b"X-Request-Id: too-long")
    assert (reply.status_code, problem(reply)) == (413, "too-large")
    assert reply.headers.get_list("X-Request-Id") == ["too-long"]
    assert "too-long" not in [each["id"] for each in proxied.logged()]


def test_a_body_of_the_longest_image_passes(proxied: RunningService) -> None:
    with proxied.client() as asking:
        reply = asking.post("/v1/score", json={"image": "A" * (MAX_BYTES * 4 // 3 // 4 * 4)})
    assert (reply.status_code, reply.json()["status"]) == (200, "decode_failed")


def test_what_the_gateway_does_not_take_is_given_up_soon_after_its_deadline(proxied: RunningService) -> None:
    (gateway,) = proxied.replicas("Gateway")
    gateway.suspend()
    try:
        with proxied.client() as asking:
            reply = asking.get("/healthz")
    finally:
        gateway.resume()
    assert (reply.status_code, problem(reply)) == (503, "deadline")
    assert reply.headers["Retry-After"] == "2"
    assert DEADLINE_S + MARGIN_S <= reply.elapsed.total_seconds() < 3 * (DEADLINE_S + MARGIN_S)
    with proxied.client() as asking:
        until(lambda: asking.get("/healthz").status_code == 200, 60)
