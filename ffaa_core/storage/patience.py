"""Trying a request to storage again for a while, and telling the user when nothing of it answers."""

import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable

from ffaa_core.errors import ConfigurationError

PATIENCE = "FFAA_STORAGE_PATIENCE"
"""Variable: seconds for which a request is tried again that storage fails or throttles."""
PATIENCE_S = 120.0
"""The same if it is not set: longer than a restart of what serves storage."""
TIMEOUT = "FFAA_STORAGE_TIMEOUT"
"""Variable: seconds without a byte after which a request is given up, and sent again."""
TIMEOUT_S = 20.0
"""The same if it is not set: six tries within the patience."""

FIRST_WAIT, LONGEST_WAIT = 0.2, 10.0
"""Seconds up to which the first and any later wait is drawn; each bound is twice the one before."""
TELL_AFTER_S = 5.0
"""Silence of which the user is told, once a request has failed twice in it."""
QUIET_S = 30.0
"""Time after which the user may be told again, however often storage comes and goes."""


def seconds(variable: str, default: float) -> float:
    """What an environment variable says, a number above 0.

    Raises:
        ConfigurationError: it says something else.
    """
    text = os.environ.get(variable, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigurationError(f"{variable} is {text!r}; it must be a number of seconds above 0")
    return value


class Patience:
    """The tries of one request: how long it waits in between, and when it has been tried for long enough."""

    def __init__(self) -> None:
        self._seconds = seconds(PATIENCE, PATIENCE_S)
        self._begun = time.monotonic()
        self._longest = FIRST_WAIT
        self._failed = 0

    def wait(self, failure: str) -> bool:
        """Wait before the next try, or return False at once: it has been tried for long enough.

        Args:
            failure: what the last try came to, for the user.
        """
        tried_s = time.monotonic() - self._begun
        wait, left = random.uniform(0, self._longest), self._seconds - tried_s
        if wait > left:
            return False
        self._failed += 1
        if tried_s < TELL_AFTER_S:
            wait = min(wait, TELL_AFTER_S - tried_s)  # so that the user hears of it in time
        if self._failed > 1:
            _silence.goes_on(self._begun, f"{failure}; it is tried again for {left:.0f} s")
        time.sleep(wait)
        self._longest = min(LONGEST_WAIT, 2 * self._longest)
        return True

    def answered(self) -> None:
        """Note that storage answered."""
        _silence.end()


def tell_waits_to(tell: Callable[[str], None]) -> None:
    """Where this process tells the user that it waits for storage; standard error unless this was called."""
    _silence.tell = tell


def _to_standard_error(line: str) -> None:
    print(f"ffaa: {line}", file=sys.stderr, flush=True)


class _Silence:
    """Whether storage answers this process at all, and whether that was told. One line tells an outage."""

    def __init__(self) -> None:
        self.tell: Callable[[str], None] = _to_standard_error
        self._lock = threading.Lock()
        self._answered_at = self._told_at = -math.inf

    def end(self) -> None:
        """Storage has answered."""
        self._answered_at = time.monotonic()

    def goes_on(self, since: float, failure: str) -> None:
        """A request that was first made at `since` has failed again."""
        now = time.monotonic()
        with self._lock:
            told = self._told_at > self._answered_at or now - self._told_at < QUIET_S
            if told or now - max(since, self._answered_at) < TELL_AFTER_S:
                return
            self._told_at = now
        self.tell(f"waiting for storage: {failure}")


_silence = _Silence()
