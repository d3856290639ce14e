"""Faces per second of `ffaa serve` and of `ffaa score`, with one bundle on the same cores, in turns.

Both count while they are full: a batch from its first commit until no shard is left to begin, the service
from its first verdicts until no image is left to send. Its clients are as many as one gateway admits, and
come again when it tells them to. What is compared is the median over the rounds. A batch decodes ahead while
its engine loads: of few images that would be all of them.

  python -m benchmarks.throughput --rounds 3 --json throughput.json
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import httpx

from benchmarks.photographs import photographs
from ffaa_core.bundle import Bundle
from ffaa_core.bundle.demo import write_demo_bundle
from ray_jobs.score.answer import SHARDS_IN_FLIGHT
from serve.config import ServiceSettings
from tests.fixtures.command import FAST, Ffaa
from tests.fixtures.service import RunningService, running_service

SHARD_SIZE = 16
CLIENTS = ServiceSettings.max_requests
"""They ask again as soon as they are answered, and when they were refused after the time they are told."""
LEAST_IMAGES = 2 * CLIENTS
RAY_METRICS_S = 10
"""How often Ray's processes tell their metrics unless asked for otherwise, as in the batch."""


def batch(bundle: Bundle, images: Path, output: Path) -> float:
    """Images per second of `ffaa score`, each of which has one face, until the last shards are begun."""
    ffaa = Ffaa(dict(os.environ) | {"FFAA_BUNDLE": str(bundle.path)})
    done = ffaa("score", images, output, "--shard-size", str(SHARD_SIZE), *FAST)
    if done.returncode:
        raise RuntimeError(done.stderr)
    markers = sorted((output / "runs" / "1" / "commits").iterdir(), key=lambda file: file.stat().st_mtime)
    first, *full = markers[:-SHARDS_IN_FLIGHT]
    n_images = sum(json.loads(file.read_bytes())["counts"]["faces"] for file in full)
    return n_images / (full[-1].stat().st_mtime - first.stat().st_mtime)


async def saturated(service: RunningService, images: Sequence[bytes]) -> float:
    """Images per second of the service, as long as each of the `CLIENTS` has one to send."""
    left, ended = iter(images), list[float]()
    with service.client() as template:
        headers = template.headers
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=300, limits=limits) as client:

        async def ask() -> None:
            for image in left:
                while (reply := await client.post("/v1/score", files={"file": image})).status_code == 503:
                    await asyncio.sleep(int(reply.headers["Retry-After"]))
                if reply.status_code != 200 or len(reply.json()["faces"]) != 1:
                    raise RuntimeError(reply.text)
                ended.append(time.monotonic())

        await asyncio.gather(*(ask() for _ in range(CLIENTS)))
    full = ended[SHARD_SIZE - 1 : len(images) - CLIENTS]
    return (len(full) - 1) / (full[-1] - full[0])


def serve(bundle: Bundle, images: Sequence[bytes]) -> float:
    """The same, from the service's start to its end."""
    with running_service(bundle, metrics_every_s=RAY_METRICS_S) as service:
        return asyncio.run(saturated(service, images))


def measure(n_images: int, rounds: int, folder: Path) -> dict[str, object]:
    """Both, in turns."""
    bundle, uploads = write_demo_bundle(folder / "bundle"), folder / "images"
    images = list(islice(photographs(), n_images))
    uploads.mkdir()
    for number, image in enumerate(images):
        (uploads / f"{number:05}.jpg").write_bytes(image)
    by_batch, by_service = list[float](), list[float]()
    for number in range(rounds):
        by_batch.append(batch(bundle, uploads, folder / f"table-{number}"))
        by_service.append(serve(bundle, images))
        print(f"batch {by_batch[-1]:.2f}, service {by_service[-1]:.2f} faces/s", file=sys.stderr, flush=True)
    return {
        "images": n_images,
        "batch_faces_per_s": by_batch,
        "service_faces_per_s": by_service,
        "ratio": statistics.median(by_service) / statistics.median(by_batch),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=384, help="of each turn (default: %(default)d)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)d)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    args = parser.parse_args(arguments)
    if args.images < LEAST_IMAGES:
        parser.error(f"--images: at least {LEAST_IMAGES}, or neither is full for long enough to be measured")
    with tempfile.TemporaryDirectory(prefix="ffaa-") as folder:
        text = json.dumps(measure(args.images, args.rounds, Path(folder)), indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
