"""A burst of requests on `ffaa serve`: steady load, ten times as much for half a minute, steady again.

The demo bundle is served for real. What it can do is measured first, and the steady load is a fixed share of
it, so that the burst is beyond it on any machine. Requests arrive at their own times whatever became of those
before, but no more are under way than a client's bound: what arrives beyond it is withheld, and counted.

  python -m benchmarks.burst --json burst.json --plot burst.png
"""

import argparse
import asyncio
import itertools
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.photographs import photographs
from ffaa_core.bundle.demo import write_demo_bundle
from tests.fixtures.service import RunningService, running_service

STEADY_SHARE = 0.4
"""Of what the service can do."""
TIMES = 10
"""The burst is so many times the steady load."""
UNDER_WAY = 256
"""Requests that the client has under way at most."""
DEADLINE_S = 20.0
MAX_REQUESTS = 8
"""What the gateway admits at once: as many as are answered in the seconds that an upload may wait."""
BACK_S = 10.0
"""When latency must be back to what it was, after the burst."""
LEAST_TIMES = 5
"""What is sent in the burst is at least so many times the steady load; else too much was withheld for one."""

PHASES = ("before", "burst", "after")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One request: when it was sent, in seconds from the first, how long it took, and what came."""

    at: float
    seconds: float
    status: int
    """0 if there was no reply."""
    retry_after: bool
    has_verdict: bool


@dataclass(frozen=True, kw_only=True)
class Phases:
    """When the burst begins and ends, and when the last request is sent: seconds from the first."""

    burst: float
    calm: float
    end: float

    def name(self, at: float) -> str:
        """The phase of a request that is sent then."""
        return "before" if at < self.burst else "burst" if at < self.calm else "after"


async def post(client: httpx.AsyncClient, image: bytes, begun: float) -> Reply:
    """Ask for a verdict."""
    sent = time.monotonic()
    try:
        reply = await client.post("/v1/score", files={"file": image})
        status, body = reply.status_code, reply.content
        retry_after = reply.headers.get("Retry-After", "").isdigit()
    except httpx.HTTPError:
        status, body, retry_after = 0, b"", False
    return Reply(
        at=sent - begun,
        seconds=time.monotonic() - sent,
        status=status,
        retry_after=retry_after,
        has_verdict=status == 200 and json.loads(body)["status"] == "scored",
    )


async def capacity(client: httpx.AsyncClient, images: Iterator[bytes], seconds: float, at_once: int) -> float:
    """Verdicts per second while so many clients always wait for one."""
    begun = time.monotonic()

    async def ask() -> int:
        verdicts = 0
        while time.monotonic() < begun + seconds:
            verdicts += (await post(client, next(images), begun)).has_verdict
        return verdicts

    of_each = await asyncio.gather(*(ask() for _ in range(at_once)))
    return sum(of_each) / (time.monotonic() - begun)


async def load(
    client: httpx.AsyncClient, images: Iterator[bytes], rate: float, phases: Phases, seed: int
) -> tuple[list[Reply], list[float]]:
    """Send requests at random moments, at `rate` a second and in the burst `TIMES` that.

    Returns: the replies, and when requests arrived that the bound on those under way withheld: never sent.
    """
    draw = random.Random(seed)
    begun, at = time.monotonic(), 0.0
    under_way: set[asyncio.Task[Reply]] = set()
    sent: list[asyncio.Task[Reply]] = []
    withheld: list[float] = []
    while at < phases.end:
        await asyncio.sleep(begun + at - time.monotonic())
        if len(under_way) < UNDER_WAY:
            request = asyncio.create_task(post(client, next(images), begun))
            under_way.add(request)
            request.add_done_callback(under_way.discard)
            sent.append(request)
        else:
            withheld.append(at)
        at += draw.expovariate(rate * (TIMES if phases.name(at) == "burst" else 1))
    return await asyncio.gather(*sent), withheld


def figures(
    replies: Sequence[Reply], withheld: Sequence[float], phases: Phases, rate: float
) -> dict[str, Any]:
    """What came of it: numbers of replies by phase, and the seconds that verdicts took."""

    def took(within: list[Reply]) -> dict[str, float]:
        seconds = sorted(reply.seconds for reply in within if reply.has_verdict)
        if not seconds:
            return {}
        ninetieth = seconds[math.ceil(0.9 * len(seconds)) - 1]
        return {"median": statistics.median(seconds), "ninetieth": ninetieth, "worst": seconds[-1]}

    by_phase = {name: [r for r in replies if phases.name(r.at) == name] for name in PHASES}
    held = Counter(phases.name(at) for at in withheld)
    back = [reply for reply in by_phase["after"] if reply.at >= phases.calm + BACK_S]
    return {
        "steady_per_s": rate,
        "burst_per_s": rate * TIMES,
        "burst_sent_per_s": len(by_phase["burst"]) / (phases.calm - phases.burst),
        "deadline_s": DEADLINE_S,
        "replies": {
            name: dict(sorted(Counter(str(r.status) for r in some).items()))
            for name, some in by_phase.items()
        },
        "withheld": {name: held[name] for name in PHASES},
        "verdict_s": {name: took(some) for name, some in by_phase.items()} | {"back": took(back)},
        "lost": sum(reply.status == 0 for reply in replies),
        "neither": sum(not (r.has_verdict or (r.status == 503 and r.retry_after)) for r in replies),
        "slowest_s": max(reply.seconds for reply in replies),
    }


def faults(found: dict[str, Any]) -> list[str]:
    """What a burst must not do and did, in words."""
    before, back = found["verdict_s"]["before"], found["verdict_s"]["back"]
    wrong = []
    if found["neither"]:
        wrong.append(f"{found['neither']} requests had neither a verdict nor a 503 with Retry-After")
    if found["slowest_s"] > 1.1 * DEADLINE_S:
        wrong.append(f"a request took {found['slowest_s']:.1f} s, its deadline was {DEADLINE_S:g} s")
    if found["burst_sent_per_s"] < LEAST_TIMES * found["steady_per_s"]:
        wrong.append(f"{found['withheld']['burst']} requests were withheld from the burst: this was none")
    if "503" not in found["replies"]["burst"]:
        wrong.append("nothing was refused: this was no burst")
    if not back or any(back[of] > max(1.5 * before[of], before[of] + 0.25) for of in ("median", "ninetieth")):
        wrong.append(f"verdicts took {before} before and {back} {BACK_S:g} s after the burst")
    return wrong


def plot(replies: Sequence[Reply], phases: Phases, file: Path) -> None:
    """Each request at its time: how long it took, and what came."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (took, rates) = plt.subplots(2, 1, figsize=(9, 6), sharex=True)
    kinds = {
        "verdict": (200, "tab:blue"),
        "503 with Retry-After": (503, "tab:orange"),
        "lost": (0, "tab:red"),
    }
    edges = [float(second) for second in range(int(phases.end) + 2)]
    shown = [
        (label, colour, [r for r in replies if r.status == status])
        for label, (status, colour) in kinds.items()
    ]
    for label, colour, some in shown:
        if some:
            took.plot([r.at for r in some], [r.seconds for r in some], ".", ms=3, color=colour, label=label)
    rates.hist(
        [[r.at for r in some] for *_, some in shown], edges, stacked=True, color=[c for _, c, _ in shown]
    )
    for axes in (took, rates):
        axes.axvspan(phases.burst, phases.calm, color="0.93", zorder=0)
        axes.grid(alpha=0.3)
    took.set(ylabel="seconds to the reply", yscale="log")
    took.legend(loc="lower left")
    rates.set(xlabel="seconds", ylabel="requests sent in a second")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


async def measure(
    service: RunningService, seconds: float, rate: float | None, seed: int
) -> tuple[list[Reply], Phases, dict[str, Any]]:
    """Put the load on a running service, `seconds` of each phase; by default a share of its capacity."""
    limits = httpx.Limits(max_connections=UNDER_WAY, max_keepalive_connections=UNDER_WAY)
    with service.client() as template:
        headers = template.headers
    async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=300, limits=limits) as client:
        images = photographs()
        rate = rate or STEADY_SHARE * await capacity(client, images, seconds / 2, at_once=MAX_REQUESTS)
        phases = Phases(burst=seconds, calm=2 * seconds, end=3 * seconds + BACK_S)
        n_images = int(1.2 * rate * (phases.end + (TIMES - 1) * seconds))
        made = list(itertools.islice(images, n_images))  # before the load, for it takes the cores, too
        replies, withheld = await load(client, itertools.cycle(made), rate, phases, seed)
    return replies, phases, figures(replies, withheld, phases, rate)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write what was found; 1 if the service did what it must not."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.burst",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=30, help="of each phase (default: %(default)g)")
    parser.add_argument(
        "--rate", type=float, help="steady requests per second (default: 0.4 of the capacity)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals (default: %(default)d)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the requests here")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="ffaa-") as folder:
        bundle = write_demo_bundle(Path(folder, "bundle"))
        settings = {"deadline_seconds": DEADLINE_S, "max_requests": MAX_REQUESTS}
        with running_service(bundle, service=settings) as service:
            replies, phases, found = asyncio.run(measure(service, args.seconds, args.rate, args.seed))
    text = json.dumps(found | {"seed": args.seed, "wrong": faults(found)}, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    if args.plot:
        plot(replies, phases, args.plot)
    return 1 if faults(found) else 0


if __name__ == "__main__":
    sys.exit(main())
