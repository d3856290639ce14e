"""Conversations about a face, as OpenAI's clients hold them."""

import asyncio
import time
from contextlib import AsyncExitStack, aclosing
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from ffaa_core.conversation import opening
from ffaa_core.engine.base import Sampling
from ffaa_core.verdict import FaceVerdict, Status
from serve import dialogue
from serve.body import JSON, decoded_size, read, require_kind
from serve.callers import bearer, owner_of, record_of
from serve.dialogue import Dialogue
from serve.gateway import Gateway, Scored
from serve.limits import Held, chunks, image_too_large, seconds_left
from serve.logs import RequestRecord
from serve.openai_errors import OpenAIErrorReply, RefusedError, documented, not_valid
from serve.openai_examples import COMPLETED, MODEL_PARAMETER, PREFER_PARAMETER, REQUEST_BODY
from serve.openai_types import MODEL, ChatRequest, Chunk, Completion, ModelCard, ModelList, Subject
from serve.problems import expired, too_slow
from serve.replies import FINGERPRINT_HEADER
from serve.telling import EventStream, Reply, completion, events, within

SCHEMAS = (ChatRequest, Completion, Chunk, OpenAIErrorReply)
"""Models that only descriptions name."""


def add_chat(api: FastAPI, gateway: Gateway) -> None:
    """Add the routes of OpenAI's API."""
    _add_models(api, gateway)
    _add_completions(api, gateway)


def _add_models(api: FastAPI, gateway: Gateway) -> None:
    card = ModelCard(created=int(time.time()))
    dependencies = [Depends(bearer), Depends(owner_of(gateway))]

    @api.get(
        "/v1/models",
        summary="The one model",
        tags=["conversation"],
        dependencies=dependencies,
        responses=documented(401),
    )
    async def models() -> ModelList:
        return ModelList(data=[card])

    @api.get(
        "/v1/models/{model}",
        summary="The model of this id",
        tags=["conversation"],
        dependencies=dependencies,
        responses=documented(401, 404),
        openapi_extra={"parameters": [MODEL_PARAMETER]},
    )
    async def model(request: Request) -> ModelCard:
        _check_model(request.path_params["model"])
        return card


def _add_completions(api: FastAPI, gateway: Gateway) -> None:
    release = gateway.release
    limit, open_question = release.config.service.deadline_seconds, release.config.answers.open_question

    @api.post(
        "/v1/chat/completions",
        summary="Talk about a face",
        tags=["conversation"],
        dependencies=[Depends(bearer)],
        response_model=Completion,
        responses=documented(400, 401, 404, 408, 413, 415, 500, 503) | {200: COMPLETED},
        openapi_extra={"requestBody": REQUEST_BODY, "parameters": [PREFER_PARAMETER]},
    )
    async def complete(request: Request, owner: Annotated[str, Depends(owner_of(gateway))]) -> Response:
        """The conversation begins with the scorer's own question about the face and the answer it chose; the
        messages follow. An image in a data URL is scored first, once for all requests that send it again.

        With `stream` the reply is a stream of events, whose data are chunks and at last `[DONE]`.
        """
        record = record_of(request)
        seconds = seconds_left(request.headers.get("prefer"), limit)
        deadline = asyncio.get_running_loop().time() + seconds
        async with AsyncExitStack() as stack:
            held = stack.enter_context(gateway.admission.request())
            try:
                async with asyncio.timeout_at(deadline):
                    with record.stage("receive"):
                        asked = await _read(request, held, gateway)
                    room = decoded_size(held.bytes)
                    held.hold(room)
                    said = await asyncio.to_thread(dialogue.read, asked.messages)
                    held.release(room - (len(said.image) if isinstance(said.image, bytes) else 0))
                    scored = await _scored(said, gateway, owner, record)
            except TimeoutError:
                raise (expired if held.received else too_slow)(seconds) from None
            number, face = _face(scored, asked.face)
            stack.enter_context(record.stage("converse"))
            turns = (opening(face, open_question), *said.turns)
            crop = scored.crops[number]
            talk = gateway.converse(turns, crop, face.crop_sha256, _sampling(asked), owner)
            pieces = await stack.enter_async_context(aclosing(within(deadline, seconds, talk)))
            first = await anext(pieces)
            reply = Reply(release.fingerprint, _subject(scored, number, face, release.warning))
            headers = {FINGERPRINT_HEADER: release.fingerprint}
            if not asked.stream:
                whole = completion(reply, [first, *[piece async for piece in pieces]])
                return JSONResponse(whole.model_dump(mode="json"), headers=headers)
            told = events(reply, first, pieces, record, with_usage=_wants_usage(asked))
            return EventStream(told, stack.pop_all(), headers)


async def _read(request: Request, held: Held, gateway: Gateway) -> ChatRequest:
    """The request, of a form that this service knows.

    Raises:
        ProblemError: 400, 404, 413, 415, or 503 for want of room.
    """
    require_kind(request, JSON)
    body = b"".join([chunk async for chunk in chunks(request, held, gateway.release.config.max_body_bytes)])
    asked = await asyncio.to_thread(read, body, ChatRequest, not_valid)
    _check_model(asked.model)
    if asked.stream_options and not asked.stream:
        raise RefusedError("stream_options", "invalid_value", "stream_options are for requests with stream")
    if None not in (asked.max_tokens, asked.max_completion_tokens):
        raise RefusedError(
            "max_tokens", "invalid_value", "give max_completion_tokens or max_tokens, which is its older name"
        )
    return asked


def _check_model(model: str) -> None:
    if model != MODEL:
        raise RefusedError("model", "model_not_found", f"there is one model here, {MODEL!r}", status=404)


async def _scored(said: Dialogue, gateway: Gateway, owner: str, record: RequestRecord) -> Scored:
    """The image of a conversation, scored now or before.

    Raises:
        ProblemError: 404, no image of this id is remembered for the caller; 413; 503.
    """
    if isinstance(said.image, bytes):
        max_bytes = gateway.release.config.decode.max_bytes
        if len(said.image) > max_bytes:
            raise image_too_large(len(said.image), max_bytes)
        return await gateway.score_once(said.image, owner, record)
    scored = await gateway.recall(owner, said.image)
    if scored is None:
        raise RefusedError(
            "messages",
            "image_not_found",
            "no image of this id is remembered for this key; send the image again",
            status=404,
        )
    return scored


def _face(scored: Scored, wanted: int | None) -> tuple[int, FaceVerdict]:
    """The face that is talked about, and its number.

    Raises:
        RefusedError: 400, there is no such face, or no verdict on it.
    """
    verdict = scored.verdict
    faces = dict(enumerate(verdict.faces))
    if wanted is not None and wanted not in faces and faces:
        raise RefusedError("face", "face_not_found", f"the image has {len(faces)} faces, numbered from 0")
    scores = {
        number: face.forgery_score
        for number, face in faces.items()
        if face.status is Status.SCORED and face.forgery_score is not None and wanted in (None, number)
    }
    if not scores:
        status = verdict.status if wanted is None or not faces else faces[wanted].status
        why = f": {verdict.status_detail}" if verdict.status_detail else ""
        raise RefusedError(
            "messages", status, f"there is no face to talk about, for the image is {verdict.status}{why}"
        )
    number = max(scores, key=lambda each: scores[each])
    return number, faces[number]


def _sampling(asked: ChatRequest) -> Sampling:
    default = Sampling()
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    return Sampling(
        max_tokens=asked.max_completion_tokens or asked.max_tokens,
        temperature=default.temperature if asked.temperature is None else asked.temperature,
        top_p=default.top_p if asked.top_p is None else asked.top_p,
        stop=tuple(stop),
        seed=asked.seed,
    )


def _subject(scored: Scored, number: int, face: FaceVerdict, warning: str | None) -> Subject:
    return Subject(
        image_id=scored.image_id,
        face=number,
        verdict=face.verdict,
        forgery_type=face.forgery_type,
        forgery_score=face.forgery_score,
        warning=warning,
    )


def _wants_usage(asked: ChatRequest) -> bool:
    return bool(asked.stream_options and asked.stream_options.include_usage)
