"""Fixtures of the jobs' tests."""

from collections.abc import Iterator

import pytest


@pytest.fixture
def no_ray_left_over() -> Iterator[None]:
    """Ray, if the test started it in this process, ends with the test."""
    yield
    import ray

    ray.shutdown()
