"""The application with models that answer at once, or take as long as they are told to.

`import_path: tests.serve.scripted:build`; each request for an answer, and each word of a conversation, takes
$FFAA_TEST_ANSWER_S seconds, and no answer comes as long as there is a file $FFAA_TEST_HOLD, beside which
`held` says that one waits. What they say and how sure they are tells which release they are of.
"""

import asyncio
import math
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ray.serve import Application

from ffaa_core.conversation import Turn
from ffaa_core.engine.base import Crop, Generation, Piece, Sampling
from ffaa_core.pipeline import FaceJudge, Logits
from ffaa_core.settings import from_mapping
from serve.app import assemble
from serve.config import ServeConfig
from serve.engine import Engine, ServedEngine
from serve.judge import Judge
from serve.release import Release
from tests.serve.stand_ins import ScriptedEngine


class SlowEngine(ScriptedEngine):
    """Takes its time, and names the fingerprint in whatever it says."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__()
        self._fingerprint = fingerprint
        self.words = [f"{fingerprint}:", *self.words]

    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        await takes_its_time()
        hold = Path(os.environ.get("FFAA_TEST_HOLD", "/nowhere"))
        while hold.exists():
            hold.with_name("held").touch()
            await asyncio.sleep(0.02)
        said = await super().generate(prompt, crop, crop_sha256, max_tokens, constraint)
        return replace(said, text=said.text.replace("scripted", f"scripted for {self._fingerprint}"))

    async def converse(
        self, turns: Sequence[Turn], crop: Crop, crop_sha256: str, sampling: Sampling
    ) -> AsyncGenerator[Piece]:
        async with aclosing(super().converse(turns, crop, crop_sha256, sampling)) as pieces:
            async for piece in pieces:
                await takes_its_time()
                yield piece


async def takes_its_time() -> None:
    await asyncio.sleep(float(os.environ.get("FFAA_TEST_ANSWER_S", "0")))


class ScriptedEngines(Engine):
    async def start_engine(self, release: Release) -> ServedEngine:
        return SlowEngine(release.fingerprint)


class SureJudge:
    """Believes every answer as much as `match_score` says."""

    def __init__(self, fingerprint: str) -> None:
        self._logit = logit(fingerprint)

    def logits(self, crops: Sequence[Crop], masked_answers: Sequence[Sequence[str]]) -> list[Logits | None]:
        return [np.array([[self._logit, 0, 0, self._logit]] * len(answers)) for answers in masked_answers]


def logit(fingerprint: str) -> float:
    """Another one for each release, from 4 to 5."""
    return 4 + int(fingerprint, 16) / 16 ** len(fingerprint)


def match_score(fingerprint: str) -> float:
    """That of every answer under a release."""
    return 1 / (1 + math.exp(-logit(fingerprint)))


class ScriptedJudges(Judge):
    def load_judge(self, release: Release) -> FaceJudge:
        return SureJudge(release.fingerprint)


def build(args: dict[str, Any]) -> Application:
    """As `serve.app.build`."""
    release = Release.of(from_mapping(ServeConfig, args))
    return assemble(release, engine=ScriptedEngines, judge=ScriptedJudges)
