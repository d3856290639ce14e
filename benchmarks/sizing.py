"""What a night of so many images takes: GPUs, cores, objects, requests, memory. docs/sizing.md says why.

python -m benchmarks.sizing --images 1000000 --faces-per-image 0.4 --faces-per-gpu-second 2.5
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

from ffaa_core.table.known import CHUNK
from ffaa_core.table.plan import SHARD_BYTES, SHARD_SIZE, SHARDS_PER_PART

LISTED_PER_PAGE = 1000
ROW_BYTES, FACE_BYTES = 300, 1700
"""Of a row, and of each of its faces, in Parquet."""
KNOWN_BYTES = 45
"""Of an image among the known rows."""
DRIVER_MIB, DRIVER_MIB_PER_SHARD = 615, 0.013
"""From a million images on."""
SCRATCH_BYTES = 200
"""On the head's disk, for each listed image."""
PUT_DOLLARS, GET_DOLLARS = 5e-6, 4e-7
"""List prices of S3 Standard in us-east-1: PUT and LIST, GET and HEAD."""


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Requests to S3; a HEAD counts as a GET, which is what it costs."""

    get: int = 0
    put: int = 0
    list: int = 0

    def __add__(self, other: "Requests") -> "Requests":
        return Requests(get=self.get + other.get, put=self.put + other.put, list=self.list + other.list)

    @property
    def dollars(self) -> float:
        return (self.put + self.list) * PUT_DOLLARS + self.get * GET_DOLLARS


def listing(images: int) -> Requests:
    """To list INPUT as a prefix; of an inventory it is a few."""
    return Requests(list=math.ceil(images / LISTED_PER_PAGE))


def scoring(images: int, shards: int) -> Requests:
    """From the seal to the close.

    Left out are some fifty that a run makes whatever its size, and those by which a process reads plan parts.
    """
    return Requests(
        get=images + 3 * shards,
        put=2 * shards + math.ceil(shards / SHARDS_PER_PART),
        list=5 * math.ceil(shards / LISTED_PER_PAGE),
    )


def comparing(nights: int, images: int) -> Requests:
    """To find out what earlier nights have settled, `images` each: seal, summary and known rows are read."""
    return Requests(get=nights * (3 + math.ceil(images * KNOWN_BYTES / CHUNK)))


@dataclass(frozen=True, kw_only=True)
class Night:
    """So many new images in a night, and what is assumed of them and of the machines.

    `tables` is in how many parts the images are scored, each with an INPUT, an OUTPUT and a head of its own.
    """

    images: int = 1_000_000
    faces_per_image: float = 1.0
    image_bytes: int = 300_000
    hours: float = 8.0
    faces_per_gpu_second: float = 14.0
    images_per_core_second: float = 23.0
    shard_size: int = SHARD_SIZE
    tables: int = 1

    @property
    def gpu_hours(self) -> float:
        return self.images * self.faces_per_image / self.faces_per_gpu_second / 3600

    @property
    def core_hours(self) -> float:
        return self.images / self.images_per_core_second / 3600

    @property
    def shards(self) -> int:
        by_bytes = max(1, SHARD_BYTES // self.image_bytes)
        return math.ceil(self.images / min(self.shard_size, by_bytes))

    @property
    def row_bytes(self) -> float:
        return ROW_BYTES + FACE_BYTES * self.faces_per_image

    @property
    def driver_mib(self) -> float:
        return DRIVER_MIB + DRIVER_MIB_PER_SHARD * self.shards / self.tables

    def lines(self) -> Iterator[tuple[str, str]]:
        """What it takes, and how much of it."""
        whole = scoring(self.images, self.shards) + listing(self.images)
        yield "GPU-hours", f"{self.gpu_hours:,.0f}"
        yield f"GPUs, all busy for {self.hours:g} hours", f"{math.ceil(self.gpu_hours / self.hours):,}"
        yield "core-hours of fetch and crop", f"{self.core_hours:,.0f}"
        yield "cores for each GPU", f"{self.core_hours / self.gpu_hours:.2f}" if self.gpu_hours else "-"
        yield "images a second, all night", f"{self.images / self.hours / 3600:,.0f}"
        yield "`run.shard_size`, and tables", f"{self.shard_size}, {self.tables}"
        yield "shards", f"{self.shards:,}"
        yield "objects written, with a PUT each", f"{whole.put:,}"
        yield "GET and HEAD", f"{whole.get:,}"
        yield "LIST, with INPUT a prefix", f"{whole.list:,}"
        yield "price of these requests", f"${whole.dollars:,.2f}"
        each_table = comparing(1, self.images // self.tables).get
        yield "GET and HEAD of each later night", f"{each_table * self.tables:,}"
        yield "the table grows by", f"{self.images * self.row_bytes / 1e9:,.0f} GB"
        yield "images read", f"{self.images * self.image_bytes / 1e12:,.1f} TB"
        yield "memory of each driver", f"{self.driver_mib / 1024:.1f} GiB"
        yield (
            "scratch disk of each head",
            f"{self.images / self.tables * SCRATCH_BYTES / (1 << 30):.1f} GiB",
        )


NIGHTS = (
    Night(),
    Night(images=10_000_000, shard_size=512),
    Night(images=100_000_000, shard_size=512, tables=2),
)
"""Those of docs/sizing.md."""


def table(nights: Sequence[Night]) -> str:
    """The nights side by side, in Markdown."""
    columns = [dict(night.lines()) for night in nights]
    rows = [
        ("new images in a night", *(f"{night.images:,}" for night in nights)),
        ("---", *("--:" for _ in nights)),
    ]
    rows += [(what, *(column[what] for column in columns)) for what in columns[0]]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of docs/sizing.md, or that of another night."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sizing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for field in fields(Night):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=type(field.default), help=f"({field.default})"
        )
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    nights = [replace(Night(), **given)] if "images" in given else [replace(n, **given) for n in NIGHTS]
    sys.stdout.write(table(nights))
    return 0


if __name__ == "__main__":
    sys.exit(main())
