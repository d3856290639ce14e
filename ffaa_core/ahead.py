"""Calls that wait for storage, made beside each other and before their results are wanted."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

WORKERS = 16
"""Calls that are under way at once."""
AHEAD = 4 * WORKERS
"""Calls that are made, or whose results wait to be taken, unless they are large."""


def ahead(call: Callable[[U], T], items: Iterable[U], most: int = AHEAD) -> Generator[T, None, None]:
    """`call` of each item, in their order. Calls not yet made are dropped when nobody wants the rest.

    Args:
        most: so many results are held at most, at least 1.
    """
    made: deque[Future[T]] = deque()
    with ThreadPoolExecutor(WORKERS) as threads:
        try:
            for item in items:
                made.append(threads.submit(call, item))
                if len(made) == most:
                    yield made.popleft().result()
            while made:
                yield made.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
