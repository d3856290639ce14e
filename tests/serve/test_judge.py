"""MIDS as a deployment: a batch of requests is judged at once, and each gets its own logits back."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from ray import serve as ray_serve

from ffaa_core.pipeline import Crop, FaceJudge, Logits
from serve.config import ServeConfig
from serve.judge import BATCH_IMAGES, Judge
from serve.release import Release

RELEASE = Release(config=ServeConfig(), bundle="/none", fingerprint="0" * 16, warning=None)


class Counting:
    """Says of each face what is in its crop; notes how many faces it was asked about at a time."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def logits(self, crops: Sequence[Crop], masked_answers: Sequence[Sequence[str]]) -> list[Logits | None]:
        self.asked.append(len(crops))
        return [
            np.full((len(answers), 4), float(crop[0, 0, 0])) if "fails" not in answers else None
            for crop, answers in zip(crops, masked_answers, strict=True)
        ]


class CountingJudge(Judge):
    def load_judge(self, release: Release) -> FaceJudge:
        self.mids = Counting()
        return self.mids


def faces(*values: int) -> list[Crop]:
    return [np.full((2, 2, 3), value, np.uint8) for value in values]


async def test_requests_are_judged_together_and_told_apart() -> None:
    judge = CountingJudge(RELEASE)
    replies = await judge.judge(
        [
            (faces(1, 2), [["a"] * 3] * 2),
            (faces(3), [["fails"] * 3]),
            (faces(4), [["a"] * 3]),
        ]
    )
    assert judge.mids.asked == [4]
    values = [[None if logits is None else logits[0, 0] for logits in reply] for reply in replies]
    assert values == [[1, 2], [None], [4]]


@pytest.fixture
def in_a_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ray_serve.batch` asks its replica how many calls it may have under way."""
    context = SimpleNamespace(_deployment_config=SimpleNamespace(max_ongoing_requests=2 * BATCH_IMAGES))
    monkeypatch.setattr(ray_serve, "get_replica_context", lambda: context)


@pytest.mark.usefixtures("in_a_replica")
async def test_calls_that_come_together_share_a_batch() -> None:
    judge = CountingJudge(RELEASE)
    first, second = await asyncio.gather(
        judge.logits(faces(1, 2), [["a"] * 3] * 2), judge.logits(faces(3), [["a"] * 3])
    )
    assert judge.mids.asked == [3]
    assert [values[0, 0] for values in (*first, *second) if values is not None] == [1, 2, 3]


@pytest.mark.usefixtures("in_a_replica")
async def test_a_batch_has_no_more_images_than_it_may() -> None:
    judge = CountingJudge(RELEASE)
    calls = [judge.logits(faces(value), [["a"] * 3]) for value in range(BATCH_IMAGES + 1)]
    replies = await asyncio.gather(*calls)
    assert sorted(judge.mids.asked) == [1, BATCH_IMAGES]
    assert [values[0, 0] for (values,) in replies if values is not None] == list(range(BATCH_IMAGES + 1))
