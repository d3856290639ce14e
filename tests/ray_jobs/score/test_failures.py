"""Saying why Ray ended a job."""

import errno
import os

import pytest
from ray.exceptions import (
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)

from ray_jobs.score.failures import DISK_FULL, OUT_OF_MEMORY, explain


def in_a_task(cause: Exception) -> BaseException:
    """The error as Ray hands it on."""
    error = RayTaskError("fetch_crop", f"Traceback ...\n{cause!r}", cause)
    return error.as_instanceof_cause()  # type: ignore[no-any-return]


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OutOfMemoryError("Task was killed"), OUT_OF_MEMORY),
        (in_a_task(MemoryError()), OUT_OF_MEMORY),
        (OutOfDiskError(), DISK_FULL),
        (ObjectStoreFullError(), DISK_FULL),
        (in_a_task(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), DISK_FULL),
        (in_a_task(caused(RuntimeError("x"), OSError(errno.EDQUOT, "quota"))), DISK_FULL),
        (caused(RuntimeError("x"), OutOfMemoryError("killed")), OUT_OF_MEMORY),
    ],
)
def test_a_full_disk_and_too_little_memory_are_told_plainly(error: BaseException, told: str) -> None:
    assert explain(error) == told


def test_other_failures_are_told_by_their_last_line() -> None:
    assert explain(in_a_task(ValueError("odd"))) == "ValueError('odd')"
    assert "worker" in explain(WorkerCrashedError())
