"""MIDS as a deployment: a batch of requests is judged at once, and each gets its own logits back."""

from collections.abc import Sequence

import numpy as np

from ffaa_core.pipeline import Crop, FaceJudge, Logits
from serve.config import ServeConfig
from serve.judge import Judge
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
