"""Whether INPUT lists, whether what it lists looks like images, and whether one of them reads."""

import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from ffaa_core.errors import ConfigurationError, FFAAError
from ffaa_core.file_types import image_format, looks_like
from ffaa_core.storage import locate
from ffaa_core.table import PlannedImage
from ray_jobs.doctor.finding import Finding, error, ok, warning
from ray_jobs.score.config import ScoreConfig
from ray_jobs.score.inputs import list_images, outside

SAMPLE = 1000
"""Objects whose first bytes are looked at."""
HEAD_BYTES = 1024
READERS = 16

CHECK = "input"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the first bytes of a listed object say: nothing against it, or why it would not be scored."""

    image: PlannedImage
    unread: str = ""
    unlike: str = ""


def check_input(
    uri: str, output_uri: str, config: ScoreConfig
) -> Generator[Finding, None, list[PlannedImage]]:
    """Findings on INPUT; returns those of its first objects that look like images.

    Raises:
        ConfigurationError: there is nothing under this name, or the manifest cannot be used.
        StorageError: it cannot be listed.
    """
    started = time.monotonic()
    listed = list(islice(outside(list_images(uri, config.run.uri_column), output_uri), SAMPLE + 1))
    if not listed:
        raise ConfigurationError(f"nothing to score: all that {uri} lists lies in {output_uri}")
    seconds = time.monotonic() - started
    number = f"more than {SAMPLE}" if len(listed) > SAMPLE else str(len(listed))
    versioned = "" if listed[0].planned_version else "; a manifest tells no versions: changes go unnoticed"
    yield ok(CHECK, f"{number} objects listed, in {seconds:.1f} s{versioned}", listing_seconds=seconds)
    with ThreadPoolExecutor(READERS) as readers:
        looks = list(readers.map(lambda image: look(image, config), listed[:SAMPLE]))
    yield from judge_looks(looks, config)
    images = [seen.image for seen in looks if not seen.unread and not seen.unlike]
    if images:
        yield read_whole(images[0], config.decode.max_bytes)
    return images


def look(image: PlannedImage, config: ScoreConfig) -> Look:
    """Read an object's first bytes, and tell it by them as decoding would."""
    try:
        store, key = locate(image.image_uri)
        head = store.read(key, limit=HEAD_BYTES).data
    except FFAAError as failure:
        return Look(image=image, unread=str(failure))
    if not head:
        return Look(image=image, unlike="it is empty")
    kind = image_format(head)
    if kind in config.decode.formats:
        return Look(image=image)
    return Look(
        image=image,
        unlike=f"it is a {kind}, which is read only when asked for"
        if kind
        else f"it looks like {looks_like(head)}",
    )


def judge_looks(looks: list[Look], config: ScoreConfig) -> Iterator[Finding]:
    """How many of the objects can be read, and how many look like images."""
    unread = [seen for seen in looks if seen.unread]
    unlike = [seen for seen in looks if seen.unlike]
    readable = len(looks) - len(unread)
    like = readable - len(unlike)
    if unread:
        grave = warning if readable else error
        yield grave(
            CHECK,
            f"{len(unread)} of the first {len(looks)} cannot be read: {unread[0].unread}",
            "let these credentials read every object of INPUT (s3:GetObject), or leave those out",
        )
    if not unlike:
        if like:
            readable_ones = " that can be read" if unread else ""
            yield ok(CHECK, f"all of the first {like}{readable_ones} look like images", images=like)
        return
    example = f"such as {unlike[0].image.image_uri}: {unlike[0].unlike}"
    if not like:
        yield error(
            CHECK,
            f"none of the first {readable} looks like an image, {example}",
            f"check INPUT, and --formats, which now has {','.join(config.decode.formats)}",
        )
        return
    rate = config.run.max_failure_rate
    ends = f", and so many end it with exit code 3 (--max-failure-rate {rate:g})"
    yield warning(
        CHECK,
        f"{like} of the first {readable} look like images; {len(unlike)} do not, {example}",
        "narrow INPUT by a glob, or widen --formats; else each becomes a row decode_failed"
        + (ends if len(unlike) > rate * len(looks) else ""),
        images=like,
    )


def read_whole(image: PlannedImage, max_bytes: int) -> Finding:
    """Read one object as a run would, and compare its version with the one that was listed.

    Raises:
        StorageError: it cannot be read.
    """
    store, key = locate(image.image_uri)
    started = time.monotonic()
    content = store.read(key, limit=max_bytes + 1)
    seconds = time.monotonic() - started
    if image.planned_version not in (None, content.version):
        return warning(
            CHECK,
            f"{image.image_uri} was listed with version {image.planned_version} and read with "
            f"{content.version}: listing and reading disagree, or somebody writes there now",
            "if nobody writes there, every run would score everything anew: use a manifest as INPUT",
        )
    return ok(CHECK, f"{image.image_uri} reads: {content.size:,} bytes in {seconds:.2f} s", seconds=seconds)
