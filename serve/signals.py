"""What signals ask the command for: to end, or to read its configuration again."""

import signal
import time
from types import FrameType

LOOK_EVERY_S = 0.25


class Signals:
    """SIGTERM and SIGINT ask for the end, and a second one ends this process at once. SIGHUP asks for the
    configuration to be read again.
    """

    def __init__(self) -> None:
        self._stop = self._reload = False

    def handle(self) -> None:
        """Take the signals, also those that a library has taken meanwhile."""
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        signal.signal(signal.SIGHUP, self._read_again)

    def stop_within(self, seconds: float) -> bool:
        """Wait at most so long for a signal to end."""
        give_up_at = time.monotonic() + seconds
        while not self._stop and time.monotonic() < give_up_at:
            time.sleep(min(seconds, LOOK_EVERY_S))
        return self._stop

    def wait_for_reload(self) -> bool:
        """Wait for a signal; False if it is one to end."""
        while not self._stop and not self._reload:
            time.sleep(LOOK_EVERY_S)
        self._reload = False
        return not self._stop

    def _end(self, number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._stop = True

    def _read_again(self, *_: object) -> None:
        self._reload = True
