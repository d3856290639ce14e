"""Fixtures of the service's tests."""

import io
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from serve.keys import VARIABLE, digest
from tests.serve.stand_ins import KEY, OTHER_KEY, Service, service_of


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A PNG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 120, 40)).save(file, "PNG")
    return file.getvalue()


@pytest_asyncio.fixture
async def make_service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Service]]:
    """Makes services with stand-ins for their models."""
    monkeypatch.setenv(VARIABLE, f"{digest(KEY)},{digest(OTHER_KEY)}")
    async with AsyncExitStack() as stack:

        def make(**settings: Any) -> Service:
            service = service_of(**settings)
            stack.push_async_callback(service.client.aclose)
            return service

        yield make


@pytest_asyncio.fixture
async def service(make_service: Callable[..., Service]) -> Service:
    """One with the default settings."""
    return make_service()


@pytest.fixture
def records() -> Iterator[list[dict[str, Any]]]:
    """The lines of the request log."""

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if hasattr(record, "ffaa"):
                kept.append(record.ffaa)

    kept: list[dict[str, Any]] = []
    log, handler = logging.getLogger("ray.serve"), Keep()
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    yield kept
    log.removeHandler(handler)
    log.setLevel(level)
