"""What a command takes while it runs: memory of its process and of those it started, and their CPU time."""

import re
import subprocess
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

INTERVAL_S = 0.5
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One look, at seconds since the epoch: memory of the command's own process, CPU time of all of its."""

    at: float
    rss_mib: float
    cpu_s: float


class Footprint:
    """Looks at a command every now and then, from the moment the block is entered until it is left."""

    def __init__(self, command: subprocess.Popen[bytes]) -> None:
        self.samples: list[Sample] = []
        self.peak_mib = 0.0
        """The most memory the command itself has held, as the kernel tells (VmHWM)."""
        self.others_mib: defaultdict[str, float] = defaultdict(float)
        """The same of each kind of process that it started, of the largest of its kind."""
        self._command = command
        self._rss_mib = 0.0
        self._cpu_s: dict[int, float] = {}
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join()

    def cpu_s_at(self, at: float) -> float:
        """CPU time used up to a moment, drawn straight between two looks."""
        before = max((s for s in self.samples if s.at <= at), key=lambda s: s.at, default=self.samples[0])
        after = min((s for s in self.samples if s.at > at), key=lambda s: s.at, default=before)
        if after.at == before.at:
            return before.cpu_s
        return before.cpu_s + (after.cpu_s - before.cpu_s) * (at - before.at) / (after.at - before.at)

    def _watch(self) -> None:
        while not self._left.is_set() and self._command.poll() is None:
            self._look()
            self._left.wait(INTERVAL_S)

    def _look(self) -> None:
        self._rss_mib = 0.0
        with suppress(psutil.NoSuchProcess):
            command = psutil.Process(self._command.pid)
            line = command.cmdline()
            for process in [command, *command.children(recursive=True)]:
                with suppress(psutil.Error, OSError, KeyError):  # it has just ended
                    self._look_at(process, own=process.cmdline() == line)
        if self._rss_mib:
            cpu_s = sum(self._cpu_s.values())
            self.samples.append(Sample(at=time.time(), rss_mib=self._rss_mib, cpu_s=cpu_s))

    def _look_at(self, process: psutil.Process, *, own: bool) -> None:
        """A command that works in a process below it has its own command line there, too."""
        times, memory = process.cpu_times(), _memory_mib(process.pid)
        self._cpu_s[process.pid] = times.user + times.system
        if own:
            self.peak_mib = max(self.peak_mib, memory["VmHWM"])
            self._rss_mib = max(self._rss_mib, memory["VmRSS"])
        else:
            kind = _kind(process.cmdline())
            self.others_mib[kind] = max(self.others_mib[kind], memory["VmHWM"])


def _memory_mib(pid: int) -> dict[str, float]:
    status = Path(f"/proc/{pid}/status").read_text()
    return {name: int(kib) / 1024 for name, kib in re.findall(r"^(Vm\w+):\s+(\d+) kB", status, re.MULTILINE)}


def _kind(command_line: list[str]) -> str:
    """A process's name without its number or path: `ray::Progress`, `raylet`, `python -m …`."""
    title = " ".join(command_line)
    if found := re.match(r"ray::([\w.]+)", title):
        return f"ray::{found[1]}"
    return " ".join(Path(word).name for word in command_line[:3] if not word.startswith("--"))
