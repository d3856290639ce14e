"""Neither memory nor time depends on the size of a plan; `make bench` measures a million images."""

from pathlib import Path

import pytest

from benchmarks.big_plans import make_images, score
from ffaa_core.bundle import Bundle

SMALL, LARGE = 10_000, 100_000


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_plan_ten_times_as_large_takes_the_same_memory_and_the_same_time_an_image(
    demo_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FFAA_BUNDLE", str(demo_bundle.path))
    small, large = (
        score(make_images(tmp_path / f"images-{count}", count), tmp_path / f"table-{count}")
        for count in (SMALL, LARGE)
    )
    assert (small.images, large.images) == (SMALL, LARGE)
    assert large.peak_mib - small.peak_mib < 100, (small, large)
    assert large.cpu_ms_per_image < 1.2 * small.cpu_ms_per_image, (small, large)
