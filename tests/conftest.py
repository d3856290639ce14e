"""Fixtures that every test may use; each topic has a module of its own in tests/fixtures."""

import pytest

pytest_plugins = [
    "tests.fixtures.bundle",
    "tests.fixtures.command",
    "tests.fixtures.engine",
    "tests.fixtures.hostile",
    "tests.fixtures.llama_tokenizer",
    "tests.fixtures.ceph",
    "tests.fixtures.moto",
    "tests.fixtures.nodes",
    "tests.fixtures.scored",
    "tests.fixtures.service",
    "tests.fixtures.shared",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the jobs' tests first: they take longest, and two processes then end at about the same time."""
    items.sort(key=lambda item: "ray_jobs" not in item.path.parts)
