"""A burst of requests on the running service."""

import asyncio
import itertools
from typing import Any

import httpx
import pytest

from benchmarks import burst
from benchmarks.burst import DEADLINE_S, MAX_REQUESTS, Phases, Reply, faults, figures, measure
from ffaa_core.bundle import Bundle
from tests.fixtures.service import running_service

PHASES = Phases(burst=10, calm=20, end=40)
REFUSED = Reply(at=15, seconds=0.01, status=503, retry_after=True, has_verdict=False)


def verdict(at: float, seconds: float = 1) -> Reply:
    return Reply(at=at, seconds=seconds, status=200, retry_after=False, has_verdict=True)


GOOD = [verdict(5), verdict(15, 6), verdict(16, 6), verdict(17, 6), REFUSED, verdict(21, 8), verdict(31)]


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
        ([*GOOD, verdict(32), verdict(33), verdict(34, 2)], "after the burst"),
        (GOOD[:-1], "after the burst"),
        ([*GOOD[:2], *GOOD[4:]], "2 requests were withheld from the burst"),
    ],
)
def test_what_a_burst_must_not_do_is_found(replies: list[Reply], said: str | None) -> None:
    found = figures(replies, [18.0, 19.0, 20.0], PHASES, rate=0.05)
    assert found["withheld"] == {"before": 0, "burst": 2, "after": 1}
    assert [said in fault for fault in faults(found)] == [True] if said else faults(found) == []


async def test_what_the_clients_bound_withholds_is_counted_and_not_sent_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    under_way: list[int] = [0]

    async def answer(_: httpx.Request) -> httpx.Response:
        under_way.append(under_way[-1] + 1)
        await asyncio.sleep(0.1)
        under_way.append(under_way[-1] - 1)
        return httpx.Response(200, json={"status": "scored"})

    async def run(bound: int) -> tuple[list[Reply], list[float]]:
        monkeypatch.setattr(burst, "UNDER_WAY", bound)
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            phases = Phases(burst=0.3, calm=0.6, end=0.9)
            return await burst.load(client, itertools.repeat(b""), 20, phases, seed=1)

    all_sent, nothing = await run(10**6)
    assert nothing == []
    assert max(under_way) > 3
    under_way.append(0)
    del under_way[:-1]
    sent, withheld = await run(3)
    assert max(under_way) == 3
    assert len(sent) + len(withheld) == len(all_sent)
    assert len(withheld) > len(sent)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_burst_is_answered_by_verdicts_and_refusals_and_leaves_nothing_behind(demo_bundle: Bundle) -> None:
    settings: dict[str, Any] = {"deadline_seconds": DEADLINE_S, "max_requests": MAX_REQUESTS}
    with running_service(demo_bundle, service=settings) as service:
        *_, found = asyncio.run(measure(service, 30, None, 1))
    assert faults(found) == [], found
