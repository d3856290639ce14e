"""Keeping what libraries print away from the user, in a file that is named when something fails."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO


@contextmanager
def libraries_diverted(*, verbose: bool) -> Iterator[TextIO]:
    """Standard error for our own words, while all else that this process prints goes to a log file.

    Ray's core writes to the descriptors themselves, past Python's logging. The file is named if the block
    fails, and removed otherwise. With `verbose` nothing is diverted.
    """
    if verbose:
        yield sys.stderr
        return
    with ExitStack() as stack:
        ours = stack.enter_context(os.fdopen(os.dup(2), "w", encoding="utf-8"))
        stdout = stack.enter_context(os.fdopen(os.dup(1), "w"))
        log = stack.enter_context(tempfile.NamedTemporaryFile(prefix="ffaa-", suffix=".log", delete=False))
        _point_standard_streams(log.fileno(), log.fileno())
        try:
            yield ours
        except BaseException:
            print(f"ffaa: the libraries' own messages are in {log.name}", file=ours)
            raise
        else:
            os.unlink(log.name)
        finally:
            _point_standard_streams(stdout.fileno(), ours.fileno())


def _point_standard_streams(stdout: int, stderr: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
