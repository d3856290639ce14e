"""MIDS as a deployment: the faces of requests that arrive together are judged together."""

import asyncio
import os
from collections.abc import Sequence

from ray import serve as ray_serve

from ffaa_core.pipeline import Crop, FaceJudge, Logits
from serve.listening import listen_to_the_cluster
from serve.metrics import PartMetrics
from serve.release import Release

BATCH_IMAGES = 16
"""Images judged together at most; MIDS itself takes their faces in batches of its own."""
BATCH_WAIT_S = 0.005
"""How long the first image of a batch waits for others. MIDS takes far longer."""

Asked = tuple[Sequence[Crop], Sequence[Sequence[str]]]
"""What `ffaa_core.pipeline.to_judge` gives of one request."""


class Judge:
    """Holds MIDS. When its accelerator is lost this process exits, and Ray Serve starts another."""

    def __init__(self, release: Release) -> None:
        listen_to_the_cluster()
        self._metrics = PartMetrics("judge")
        self._judge = self.load_judge(release)

    def load_judge(self, release: Release) -> FaceJudge:
        """Load the bundle's MIDS; other judges override this."""
        from ffaa_core.mids import Judge as Mids

        return Mids.load(release.open_bundle("mids", "vision", "text"))

    async def logits(
        self, crops: Sequence[Crop], masked_answers: Sequence[Sequence[str]]
    ) -> list[Logits | None]:
        """As `ffaa_core.pipeline.FaceJudge.logits`."""
        return await self._in_a_batch((crops, masked_answers))

    @ray_serve.batch(max_batch_size=BATCH_IMAGES, batch_wait_timeout_s=BATCH_WAIT_S)
    async def _in_a_batch(self, asked: list[Asked]) -> list[list[Logits | None]]:
        return await self.judge(asked)

    async def judge(self, asked: list[Asked]) -> list[list[Logits | None]]:
        """What MIDS says of each of several requests, asked about all of their faces together."""
        import torch

        crops = [crop for of_one, _ in asked for crop in of_one]
        answers = [masked for _, of_one in asked for masked in of_one]
        try:
            logits = iter(await asyncio.to_thread(self._judge.logits, crops, answers))
        except torch.AcceleratorError:
            os._exit(1)
        return [[next(logits) for _ in of_one] for of_one, _ in asked]
