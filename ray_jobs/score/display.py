"""Showing a run while it goes on: a live bar in a terminal, a plain line now and then elsewhere."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

LIVE_INTERVAL_S = 0.5
PLAIN_INTERVAL_S = 10.0


@dataclass(kw_only=True)
class RunState:
    """How far a run is. `images_done` begins with what was committed before this process."""

    n_images: int
    images_done: int = 0
    faces: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    _measured_from: tuple[float, int] | None = None
    _now: float = 0.0

    def advance(self, images_done: int, faces: int, now: float | None = None) -> None:
        """Take in new counts. Speed counts from the first that shows progress: before it, models load."""
        now = time.monotonic() if now is None else now
        if images_done > self.images_done and self._measured_from is None:
            self._measured_from = now, images_done
        self.images_done, self.faces, self._now = images_done, faces, now

    @property
    def images_per_second(self) -> float | None:
        """Speed so far; None before there is one."""
        if self._measured_from is None:
            return None
        start, done = self._measured_from
        return (self.images_done - done) / (self._now - start) if self.images_done > done else None

    def line(self) -> str:
        """The state in one line of text."""
        speed = self.images_per_second
        parts = [f"{self.images_done}/{self.n_images} images", f"{self.faces} faces"]
        if self._measured_from is None:
            parts.append("starting: the models take a while to load")
        if speed:
            parts.append(f"{speed:.1f} images/s")
        parts += (f"{count} {status}" for status, count in sorted(self.statuses.items()))
        if speed and self.images_done < self.n_images:
            parts.append(f"{duration((self.n_images - self.images_done) / speed)} left")
        return " · ".join(parts)


def duration(seconds: float) -> str:
    """A time span as a person says it: `48 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


class Display:
    """Refreshes the state through `update` and shows it until the block is left.

    Args:
        state: what is shown; `update` brings it up to date.
        update: called before every refresh with the state, from a thread of the display's own.
        console: where to show it; a live bar if it is a terminal.
    """

    def __init__(self, state: RunState, update: Callable[[RunState], None], console: Console) -> None:
        self._state = state
        self._update = update
        self._console = console
        self._live = (
            Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        )
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._refresh_until_stopped, daemon=True)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        if self._live:
            self._live.stop()

    def tell(self, line: str) -> None:
        """Show a line that stays."""
        self._console.print(line, highlight=False, soft_wrap=True)

    def _refresh_until_stopped(self) -> None:
        interval = LIVE_INTERVAL_S if self._live else PLAIN_INTERVAL_S
        while not self._stopped.wait(interval):
            with contextlib.suppress(Exception):  # an old state shown for a while harms nobody
                self._update(self._state)
            if self._live:
                self._live.update(_bar(self._state), refresh=True)
            else:
                self.tell(self._state.line())


def _bar(state: RunState) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=state.n_images, completed=state.images_done, width=30), state.line())
    return grid


def count_lines(counts: Mapping[str, int]) -> list[str]:
    """Counts as aligned lines, largest first."""
    width = max((len(name) for name in counts), default=0)
    return [
        f"  {name:<{width}}  {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
