"""The measure of the engine, loaded once for all tests that compare with it."""

import pytest

from tests.ffaa_core.engine.reference import Reference
from tests.fixtures.engine import DemoModel


@pytest.fixture(scope="session")
def reference(demo_mllm: DemoModel) -> Reference:
    return Reference(demo_mllm)
