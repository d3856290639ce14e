"""First stage: a shard's images are read, decoded, and their faces cut out. Runs as CPU tasks."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

from ffaa_core.errors import ConfigurationError, NotFoundError, StorageError
from ffaa_core.examiner import Examiner
from ffaa_core.pipeline import PendingImage
from ffaa_core.settings import ScoringSettings
from ffaa_core.storage import Content, locate
from ffaa_core.verdict import ImageVerdict, Status
from ray_jobs.score.blocks import BLOCK_SCHEMA, ShardImage, to_block
from ray_jobs.score.config import ScoreConfig
from ray_jobs.score.job import Job
from ray_jobs.score.progress import Progress, enter, failures_told

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.actor import ActorHandle

READERS = 8
"""Images of one shard read ahead: enough to hide the latency of object storage, few enough to hold."""

Read = tuple[bytes | ImageVerdict, str | None]


def fetch_crop(block: "pa.Table", job: Job, progress: "ActorHandle[Progress]") -> "pa.Table":
    """Turn a block of one number, a shard's, into that shard's block; one without rows if the run stops."""
    (shard,) = block.column("shard").to_pylist()
    if not enter(progress, shard, "fetch"):
        return BLOCK_SCHEMA.empty_table()
    examiner = _examiner(job.config)
    with failures_told(progress):
        planned = job.open_run().plan_rows(shard).to_pylist()
        reads = read_ahead([row["image_uri"] for row in planned], job.config.scoring)
        images = [
            ShardImage(
                image_uri=row["image_uri"],
                planned_version=row["planned_version"],
                image_version=version,
                attempts=row["attempts"],
                pending=examiner.examine(content)
                if isinstance(content, bytes)
                else PendingImage(image=content),
            )
            for row, (content, version) in zip(planned, moving(reads, progress), strict=True)
        ]
    progress.report.remote(shard, "faces found", sum(len(image.pending.faces) for image in images))
    enter(progress, shard, "fetched")
    return to_block(shard, images, {})


@lru_cache(maxsize=1)
def _examiner(config: ScoreConfig) -> Examiner:
    """This process's examiner, kept from one shard to the next."""
    return Examiner(config.scoring, seconds=config.run.image_seconds, mib=config.run.image_mib)


def moving(reads: Iterator[Read], progress: "ActorHandle[Progress]") -> Iterator[Read]:
    """The reads. Whoever asks for the next one is done with the one before, and that is progress."""
    for read in reads:
        yield read
        progress.move.remote()


def read_ahead(uris: Sequence[str], settings: ScoringSettings) -> Iterator[Read]:
    """What `read_image` gives for each, in order, with at most `READERS` images read and not yet taken."""
    with ThreadPoolExecutor(READERS) as readers:
        waiting: deque[Future[Read]] = deque()
        for uri in uris:
            if len(waiting) == READERS:
                yield waiting.popleft().result()
            waiting.append(readers.submit(read_image, uri, settings))
        while waiting:
            yield waiting.popleft().result()


def read_image(uri: str, settings: ScoringSettings) -> Read:
    """An image's bytes, or the verdict that ends it here; and the version of what was read."""
    limit = settings.decode.max_bytes
    try:
        store, key = locate(uri)
        content = store.read(key, limit=limit + 1)
    except NotFoundError:
        return _unread(Status.GONE, "it was listed, and is not there any more"), None
    except (StorageError, ConfigurationError) as error:
        return _unread(Status.FETCH_FAILED, str(error)), None
    if content.size > limit:
        return _too_large(content, limit), content.version
    return content.data, content.version


def _unread(status: Status, detail: str) -> ImageVerdict:
    return ImageVerdict(image_sha256=None, image_bytes=None, status=status, status_detail=detail)


def _too_large(content: Content, limit: int) -> ImageVerdict:
    return ImageVerdict(
        image_sha256=None,
        image_bytes=content.size,
        status=Status.TOO_LARGE,
        status_detail=f"{content.size:,} bytes, the limit is {limit:,}",
    )
