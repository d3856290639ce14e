"""The service beside the batch."""

from pathlib import Path

import pytest

from benchmarks.throughput import measure


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_busy_service_answers_for_as_many_faces_as_the_batch(tmp_path: Path) -> None:
    found = measure(128, 2, tmp_path)
    assert float(str(found["ratio"])) >= 0.85, found
