"""Why Ray ended a job, in words that say what to do."""

import errno

OUT_OF_MEMORY = (
    "a node ran out of memory and a worker was killed for it, again and again. Give the nodes more memory, "
    "or the job less at once: fewer answer_actors, smaller shards (run.shard_size, run.shard_bytes)"
)
DISK_FULL = (
    "the local disk of a node is full. Free some space there, or give Ray and TMPDIR a larger disk: crops "
    "wait on it when memory is short"
)


def explain(error: BaseException) -> str:
    """What `error`, raised by Ray, means; in Ray's own last line if it is none of what is known here."""
    from ray import exceptions

    for cause in _causes(error):
        if isinstance(cause, exceptions.OutOfMemoryError | MemoryError):
            return OUT_OF_MEMORY
        full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or isinstance(cause, exceptions.OutOfDiskError | exceptions.ObjectStoreFullError):
            return DISK_FULL
    return str(error).strip().rpartition("\n")[2]


def _causes(error: BaseException | None) -> list[BaseException]:
    """An error and what led to it; Ray keeps that in `cause`."""
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = getattr(error, "cause", None) or error.__cause__
    return causes
