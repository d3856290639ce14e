"""A burst of requests on the running service."""

import asyncio
from typing import Any

import pytest

from benchmarks.burst import DEADLINE_S, MAX_REQUESTS, Phases, Reply, faults, figures, measure
from ffaa_core.bundle import Bundle
from tests.fixtures.service import running_service

PHASES = Phases(burst=10, calm=20, end=40)
REFUSED = Reply(at=15, seconds=0.01, status=503, retry_after=True, has_verdict=False)


def verdict(at: float, seconds: float = 1) -> Reply:
    return Reply(at=at, seconds=seconds, status=200, retry_after=False, has_verdict=True)


GOOD = [verdict(5), verdict(15, 6), REFUSED, verdict(21, 8), verdict(31)]


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        (GOOD, None),
        ([*GOOD, Reply(at=15, seconds=1, status=0, retry_after=False, has_verdict=False)], "1 requests had"),
        (
            [*GOOD, Reply(at=15, seconds=1, status=503, retry_after=False, has_verdict=False)],
            "1 requests had",
        ),
        (
            [*GOOD, Reply(at=15, seconds=1, status=500, retry_after=False, has_verdict=False)],
            "1 requests had",
        ),
        ([*GOOD, verdict(16, 1.2 * DEADLINE_S)], "its deadline was"),
        ([reply for reply in GOOD if reply is not REFUSED], "no burst"),
        ([*GOOD, verdict(32, 2), verdict(33, 2)], "after the burst"),
        (GOOD[:-1], "after the burst"),
    ],
)
def test_what_a_burst_must_not_do_is_found(replies: list[Reply], said: str | None) -> None:
    found = faults(figures(replies, PHASES, rate=1))
    assert [said in fault for fault in found] == [True] if said else found == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_burst_is_answered_by_verdicts_and_refusals_and_leaves_nothing_behind(demo_bundle: Bundle) -> None:
    settings: dict[str, Any] = {"deadline_seconds": DEADLINE_S, "max_requests": MAX_REQUESTS}
    with running_service(demo_bundle, service=settings) as service:
        *_, found = asyncio.run(measure(service, 30, None, 1))
    assert faults(found) == [], found
