"""The gateway: decodes and crops, and takes an image through the other deployments to its verdict."""

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import FastAPI

from ffaa_core.answering import FAILED
from ffaa_core.conversation import Turn
from ffaa_core.engine.base import Piece, Sampling
from ffaa_core.errors import EngineError, ExaminerError
from ffaa_core.examiner import Examiner
from ffaa_core.faces import Face
from ffaa_core.pipeline import Crop, Logits, PendingFace, PendingImage, complete, to_judge, without_answers
from ffaa_core.settings import CROP_SIZE
from ffaa_core.verdict import Box, ImageVerdict, Status
from serve.hops import call, stream
from serve.keys import Keys
from serve.limits import Admission
from serve.listening import listen_to_the_cluster
from serve.logs import RequestRecord
from serve.memory import Remembered
from serve.metrics import GatewayMetrics
from serve.problems import ProblemError, unavailable
from serve.release import Release
from serve.sources import Sources
from serve.suspects import Suspects
from serve.uploads import Uploads

EXAMINED_AT_ONCE = 4
"""Images that one gateway decodes beside each other, where it has as many cores."""
MEMORY_S = 1.0
"""How long a verdict waits for the memory to take its image, which takes it no time."""
NOBODY = "nobody"
"""Owner of what is scored to warm up."""
WARM_UP_PAUSE_S = 1.0
"""Between two attempts to warm up."""

log = logging.getLogger("ray.serve")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A verdict, the crops of its faces in their order, and the id under which the image is remembered; None
    if it has no faces.
    """

    verdict: ImageVerdict
    image_id: str | None
    crops: tuple[Crop, ...] = ()


class Gateway:
    """Every replica of it admits, decodes and answers requests of its own.

    Args:
        release: what is served.
        engine: the handle of `serve.engine.Engine`.
        judge: that of `serve.judge.Judge`.
        memory: that of `serve.memory.Memory`.
    """

    def __init__(self, release: Release, engine: Any, judge: Any, memory: Any) -> None:
        listen_to_the_cluster()
        config = release.config
        service = config.service
        self.release = release
        self.metrics = GatewayMetrics()
        self.keys = Keys.of(service)
        self.admission = Admission(service.max_requests, service.max_body_mib * 2**20)
        self.uploads = Uploads(
            Sources(service.uri_prefixes, config.decode.max_bytes),
            config.decode.max_bytes,
            config.max_body_bytes,
        )
        self._suspects = Suspects()
        self._is_warm = False
        self.engine, self.judge, self.memory = engine, judge, memory
        self._processes = min(EXAMINED_AT_ONCE, len(os.sched_getaffinity(0)))
        self._examiner = Examiner(
            config.scoring, seconds=service.image_seconds, mib=service.image_mib, processes=self._processes
        )
        self._examining = ThreadPoolExecutor(self._processes, thread_name_prefix="examine")

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve for the application that answers HTTP."""
        from serve.api import create_api

        return create_api(self)

    @property
    def is_ready(self) -> bool:
        """Whether it has warmed up and still admits requests."""
        return self._is_warm and not self.admission.closed

    async def score(self, data: bytes, owner: str, record: RequestRecord) -> Scored:
        """Score an image and remember it for its owner. Whatever is wrong with the image is in the verdict.

        Raises:
            ProblemError: 503, a hop is full or its replica is being replaced.
        """
        with record.stage("examine"):
            pending = await self._examine(data)
        verdict = await self._conclude(pending, owner, record)
        record.statuses.append(verdict.status)
        if not verdict.faces:
            return Scored(verdict=verdict, image_id=None)
        crops = tuple(face.face.crop for face in pending.faces)
        with record.stage("remember"):
            image_id = await self._remember(owner, verdict, crops)
        return Scored(verdict=verdict, image_id=image_id, crops=crops)

    async def score_once(self, data: bytes, owner: str, record: RequestRecord) -> Scored:
        """The same, unless the very file was scored for its owner before and is still remembered.

        Raises:
            ProblemError: 503, as `score` does.
        """
        sha256 = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        image_id = await call(self.memory.known, owner, sha256)
        kept = await self.recall(owner, image_id) if image_id else None
        return kept or await self.score(data, owner, record)

    async def recall(self, owner: str, image_id: str) -> Scored | None:
        """An image scored before; None if it is not known (any more) or another's."""
        kept: Remembered | None = await call(self.memory.recall, owner, image_id)
        return Scored(verdict=kept.verdict, image_id=image_id, crops=kept.crops) if kept else None

    def converse(
        self, turns: Sequence[Turn], crop: Crop, crop_sha256: str, sampling: Sampling, owner: str
    ) -> AsyncGenerator[Piece]:
        """As `ffaa_core.engine.base.ConversingEngine.converse`, for an owner.

        Raises:
            ProblemError: 503, as `score` does.
        """
        return stream(self.engine.converse, turns, crop, crop_sha256, sampling, owner)

    async def warm_up(self) -> None:
        """Score a picture through every hop, again until no model fails; the gateway is ready then."""
        while not self._is_warm:
            record = RequestRecord(id="warm-up", method="", path="")
            try:
                nothing = b"no image, but the examiner has to start its processes for it"
                await asyncio.gather(*(self._examine(nothing) for _ in range(self._processes)))
                verdict = await self._conclude(_picture(), NOBODY, record)
                logits: list[Logits | None] = []
                if verdict.status is Status.ANSWER_FAILED:  # right for noise; MIDS must be warm all the same
                    logits = await call(self.judge.logits, [_noise()], [["one", "two", "three"]])
                _require_models(verdict, logits)
                # Where the head of the cluster is away, the first call to a deployment stops the gateway.
                await call(self.memory.known, NOBODY, "")
            except Exception as error:
                log.warning("not ready yet: %s: %s", type(error).__name__, error)
                await asyncio.sleep(WARM_UP_PAUSE_S)
            else:
                self._is_warm = True

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Called by Ray Serve; `{drain: true}` means to admit nothing more and finish what there is."""
        if user_config.get("drain"):
            self.admission.close()
            await self.admission.idle()

    async def check_health(self) -> None:
        """Called by Ray Serve every few seconds, and so the time to tell how it stands."""
        self.metrics.now(admitted=self.admission.under_way, ready=self.is_ready)

    def close(self) -> None:
        """End the processes that decode images, those at work when they are done."""
        self._examining.shutdown(cancel_futures=True)
        self._examiner.close()

    async def _examine(self, data: bytes) -> PendingImage:
        waiting = [data]
        try:
            return await asyncio.wrap_future(
                self._examining.submit(lambda: self._examiner.examine(waiting.pop()))
            )
        except ExaminerError as error:
            log.exception("images cannot be examined")
            raise unavailable("images cannot be decoded now") from error
        finally:
            waiting.clear()  # what is cancelled stays in the executor's queue until its turn comes

    async def _conclude(self, pending: PendingImage, owner: str, record: RequestRecord) -> ImageVerdict:
        logits: list[Logits | None] = []
        if pending.faces:
            with record.stage("answer"):
                pending = await self._answer(pending, owner)
            crops, masked_answers = to_judge([pending])
            if crops:
                with record.stage("judge"):
                    logits = await call(self.judge.logits, crops, masked_answers)
        (verdict,) = complete([pending], logits)
        return verdict

    async def _answer(self, pending: PendingImage, owner: str) -> PendingImage:
        """The image with its answers, or with none where the engine has died over it again and again."""
        image = pending.image.image_sha256
        if image not in self._suspects:
            answers = await call(
                self.engine.answer, pending, owner, on_death=lambda: self._suspects.suspect(image)
            )
        else:
            async with self._suspects.turn:
                if self._suspects.is_convicted(image):
                    return without_answers(pending, "the engine died over the image before")
                answers = await call(
                    self.engine.answer,
                    pending,
                    owner,
                    tries=1,
                    on_death=lambda: self._suspects.convict(image),
                )
        self._suspects.acquit(image)
        return pending.with_answers(answers)

    async def _remember(self, owner: str, verdict: ImageVerdict, crops: Sequence[Crop]) -> str | None:
        """The image's id, or None while there is no memory: the verdict does not wait for it."""
        try:
            async with asyncio.timeout(MEMORY_S):
                image_id: str = await call(self.memory.remember, owner, verdict, crops)
        except (ProblemError, TimeoutError) as error:
            log.warning("an image is not remembered: %s %s", type(error).__name__, error)
            return None
        return image_id


def _noise() -> Crop:
    return np.random.default_rng(0).integers(0, 256, (CROP_SIZE, CROP_SIZE, 3), np.uint8)


def _require_models(verdict: ImageVerdict, logits: Sequence[Logits | None]) -> None:
    """Raise EngineError where the engine or MIDS failed over a face; malformed answers are no failure."""
    reasons = [judged.answer.finish_reason for face in verdict.faces for judged in face.answers]
    refused = next((reason for reason in reasons if reason.startswith(FAILED)), None)
    if refused:
        raise EngineError(f"the engine answers nothing: {refused}")
    if verdict.status is Status.JUDGE_FAILED or any(each is None for each in logits):
        raise EngineError("MIDS fails on every face")


def _picture() -> PendingImage:
    """What an image of one face is after it was examined; the face is noise."""
    crop = _noise()
    box = Box(left=0, top=0, right=CROP_SIZE, bottom=CROP_SIZE)
    sha256 = hashlib.sha256(crop.tobytes()).hexdigest()
    face = Face(box=box, detection_score=None, crop=crop, crop_sha256=sha256)
    image = ImageVerdict(image_sha256=None, image_bytes=None, status=Status.CRASHED, n_faces_detected=1)
    return PendingImage(image=image, faces=(PendingFace(face=face),))
