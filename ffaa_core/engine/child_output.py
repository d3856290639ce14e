"""Keeps what the engine's processes print, so that it disturbs nobody and is there when one of them dies."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_TAIL_BYTES = 4096
_LONGEST_LINE = 300
_TORCH_WARNING = re.compile(r"(\[rank\d+\]:)?\[W\d")
"""How a warning of torch's C++ code begins; one comes last however a process on a GPU ends."""


class ChildOutput:
    """A temporary file that takes the place of stdout and stderr while processes are started.

    They inherit it, C++ libraries included, and write to it from then on. It has no name and goes with its
    last user.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (open for as long as the children write)

    @contextmanager
    def inherited(self) -> Iterator[None]:
        """Have processes started in this context write to the file, and this process too meanwhile."""
        sys.stdout.flush()
        sys.stderr.flush()
        saved = os.dup(1), os.dup(2)
        os.dup2(self._file.fileno(), 1)
        os.dup2(self._file.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in enumerate(saved, start=1):
                os.dup2(copy, number)
                os.close(copy)

    def last_line(self) -> str:
        """The last thing that was said, but for torch's warnings, or the empty string."""
        size = os.fstat(self._file.fileno()).st_size
        tail = os.pread(self._file.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        lines = tail.decode(errors="replace").split("\n")
        said = (line.strip() for line in reversed(lines))
        return next((line[:_LONGEST_LINE] for line in said if line and not _TORCH_WARNING.match(line)), "")
