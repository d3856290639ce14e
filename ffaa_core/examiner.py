"""Examines images in processes that may die of one: a bad file costs itself, never those beside it.

What a file can do to C code, a crash, an endless loop, all of the memory, ends the process it is decoded in.
That image is `crashed`, with the reason, and the next one gets a new process.
"""

import hashlib
import os
import queue
import signal
import subprocess
import sys
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING, Any

from ffaa_core.errors import ExaminerError
from ffaa_core.pipeline import PendingImage
from ffaa_core.settings import CROP_SIZE, ScoringSettings
from ffaa_core.verdict import ImageVerdict, Status

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

IMAGE_SECONDS = 120
"""Over five times what 64 megapixels take on a quiet core under `published`, the slowest of all."""

OUT_OF_MEMORY = 70
"""Exit code of a process that an image left without memory."""

_START_SECONDS = 120
_EXIT_SECONDS = 10
_MAIN = "import sys; sys.path[:] = sys.argv[3:]; from ffaa_core import examiner_process as e; e.main()"
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
_SIGNALS = {number.value: number.name.removeprefix("SIG") for number in signal.Signals}


def memory_needed(settings: ScoringSettings) -> int:
    """MiB that suffice for every image within `settings`, as measured (docs/faces.md), with a margin."""
    bytes_per_pixel = 52 if settings.faces.mode == "published" else 26
    pixels = settings.decode.max_pixels * bytes_per_pixel
    crops = settings.faces.max_faces * CROP_SIZE * CROP_SIZE * 3
    return 512 + (pixels + 2 * crops + 2 * settings.decode.max_bytes) // 2**20


class Examiner:
    """`pipeline.examine` in processes of its own, each kept from one image to the next.

    Args:
        settings: what to examine images for.
        seconds: wall time an image may take.
        mib: memory it may take beyond what its process holds anyway; None means `memory_needed(settings)`.
            Decoders take a lack of memory for damage: with less an honest image may be `decode_failed`.
        processes: images examined at once, by as many threads; others wait.
    """

    def __init__(
        self,
        settings: ScoringSettings,
        *,
        seconds: float = IMAGE_SECONDS,
        mib: int | None = None,
        processes: int = 1,
    ) -> None:
        self._seconds = seconds
        self._mib = mib or memory_needed(settings)
        self._settings = settings
        self._processes = processes
        self._places: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(processes):
            self._places.put(None)

    def examine(self, data: bytes) -> PendingImage:
        """Decode an image and cut out its faces. May be called by several threads.

        Raises:
            ExaminerError: no process can be started.
        """
        process = self._places.get()
        try:
            if process and not process.is_fit():
                process.end()
                process = None
            if process is None:
                process = _Process(self._settings, self._seconds, self._mib)
            pending = process.examine(data)
            if pending is None:
                died, process = process, None
                return PendingImage(image=_crashed(data, self._reason(died.end())))
            return pending
        except BaseException:  # interrupted: what is left of this answer is not to be taken for the next
            if process:
                process.kill()
                process = None
            raise
        finally:
            self._places.put(process)

    def close(self) -> None:
        """End the processes, those at work when they are done. The next image starts a new one."""
        processes = [self._places.get() for _ in range(self._processes)]
        for process in processes:
            if process:
                process.end()
            self._places.put(None)

    def _reason(self, code: int) -> str:
        if code == -signal.SIGALRM:
            return f"timed out after {self._seconds:g} s"
        if code == OUT_OF_MEMORY:
            return f"ran out of {self._mib:,} MiB"
        if code < 0:
            return f"was killed by signal {_SIGNALS.get(-code, -code)}"
        return f"ended its process with code {code}"


class _Process:
    """A process that examines one image at a time, and the socket to it."""

    def __init__(self, settings: ScoringSettings, seconds: float, mib: int) -> None:
        self._connection: Connection[Any, Any]
        self._connection, theirs = Pipe()
        self._worn = False
        with theirs:
            self._process = _start(theirs.fileno())
        try:
            self._connection.send((settings, seconds, mib))
            ready = self._connection.poll(_START_SECONDS) and self._connection.recv()
        except (EOFError, OSError):
            ready = False
        if not ready:
            raise ExaminerError(
                f"the process that decodes images does not start: it ended with code {self.end()}; "
                f"{sys.executable} -c 'import ffaa_core.examiner_process' may say why"
            )

    def is_fit(self) -> bool:
        """Whether it lives, and holds little of what it has examined."""
        return self._process.poll() is None and not self._worn

    def examine(self, data: bytes) -> PendingImage | None:
        """What `pipeline.examine` says; None if the process died of it."""
        try:
            self._connection.send_bytes(data)
            pending: PendingImage
            pending, self._worn = self._connection.recv()
        except (EOFError, OSError):
            return None
        return pending

    def end(self) -> int:
        """End it unless it has ended; returns its exit code, which is negative for a signal."""
        self._connection.close()
        try:
            return self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End it at once."""
        self._connection.close()
        self._process.kill()
        return self._process.wait()


def _start(socket: int) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _MAIN, str(socket), str(os.getpid()), *sys.path],
            pass_fds=[socket],
            env=os.environ | _ONE_THREAD,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is for its owner
        )
    except OSError as error:
        raise ExaminerError(f"cannot start a process to decode images in: {error}") from error


def _crashed(data: bytes, reason: str) -> ImageVerdict:
    return ImageVerdict(
        image_sha256=hashlib.sha256(data).hexdigest(),
        image_bytes=len(data),
        status=Status.CRASHED,
        status_detail=f"decoding or detection {reason}",
    )
