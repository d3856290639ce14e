"""The routes of the service."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.types import ASGIApp

from serve.callers import bearer, owner_of, record_of
from serve.chat import SCHEMAS, add_chat
from serve.envelope import Envelope
from serve.gateway import Gateway
from serve.limits import seconds_left
from serve.logs import RequestRecord
from serve.problem_handlers import add_problem_handlers
from serve.problems import ProblemDetails, documented, expired, too_slow, unavailable
from serve.replies import EXAMPLE, FINGERPRINT_HEADER, Detail, ScoreReply, score_reply
from serve.uploads import REQUEST_BODY, ImageRequest

DESCRIPTION = """\
Says which faces in an image are forged, and why. A verdict supports a decision; it does not make one.

An image that cannot be scored is answered with status 200, and its `status` says why. Problem details
(RFC 9457) are about the request. A 503 says in Retry-After when to try again; the one that Ray Serve's own
proxy sends is plain text. Other methods are answered with 405, and other paths with 404."""

SCORED: dict[str, Any] = {
    "description": "The verdict, or why there is none",
    "content": {"application/json": {"example": EXAMPLE}},
    "headers": {FINGERPRINT_HEADER: {"schema": {"type": "string"}, "description": "of models and settings"}},
}
"""OpenAPI's description of a reply to a scored image."""

REF_TEMPLATE = "#/components/schemas/{model}"


class Api(FastAPI):
    """FastAPI in an `Envelope`, which the replies to faults of the service are in, too; `ended` is its."""

    def __init__(self, ended: Callable[[RequestRecord], None], **options: Any) -> None:
        super().__init__(**options)
        self._ended = ended

    def build_middleware_stack(self) -> ASGIApp:
        """Called by Starlette, once."""
        return Envelope(super().build_middleware_stack(), self._ended)

    def openapi(self) -> dict[str, Any]:
        """With the models that only descriptions name."""
        schema = super().openapi()
        known = schema["components"]["schemas"]
        for model in (ProblemDetails, ImageRequest, *SCHEMAS):
            described = model.model_json_schema(ref_template=REF_TEMPLATE)
            known |= described.pop("$defs", {}) | {model.__name__: described}
        return schema


class Ready(BaseModel):
    """The service takes requests, and what for."""

    status: str = "ready"
    fingerprint: str


class Alive(BaseModel):
    """The gateway's process lives."""

    status: str = "ok"


def create_api(gateway: Gateway) -> Api:
    """The application that answers HTTP for one gateway. It begins to warm up as it starts."""

    @asynccontextmanager
    async def warming_up(_: FastAPI) -> AsyncIterator[None]:
        warm_up = asyncio.create_task(gateway.warm_up())
        yield
        warm_up.cancel()
        await asyncio.to_thread(gateway.close)

    api = Api(
        gateway.metrics.ended,
        title="FFAA",
        version=version("ffaa-batch"),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=warming_up,
    )
    add_problem_handlers(api, gateway.release.config.service.retry_after_seconds)
    _add_probes(api, gateway)
    _add_score(api, gateway)
    add_chat(api, gateway)
    return api


def _add_probes(api: Api, gateway: Gateway) -> None:
    @api.get("/healthz", summary="Whether the service lives", tags=["probes"])
    async def healthz() -> Alive:
        return Alive()

    @api.get(
        "/readyz",
        summary="Whether an image was scored through every hop",
        tags=["probes"],
        responses=documented(503),
    )
    async def readyz() -> Ready:
        if not gateway.is_ready:
            raise unavailable("the models are being loaded, or the service is ending")
        return Ready(fingerprint=gateway.release.fingerprint)


def _add_score(api: Api, gateway: Gateway) -> None:
    release = gateway.release

    @api.post(
        "/v1/score",
        summary="Score one image",
        tags=["score"],
        dependencies=[Depends(bearer)],
        response_model=ScoreReply,
        responses=documented(400, 401, 404, 408, 413, 415, 422, 500, 503) | {200: SCORED},
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    async def score(
        request: Request,
        owner: Annotated[str, Depends(owner_of(gateway))],
        detail: Annotated[Detail, Query(description="how much of the verdict is told")] = Detail.VERDICT,
        prefer: Annotated[
            str | None, Header(description="`wait=SECONDS` to be answered within so long (RFC 7240)")
        ] = None,
    ) -> JSONResponse:
        """The image in one of three ways: a multipart form with the file as `file`, JSON with its bytes in
        base64 as `image`, or JSON with its address on S3 as `uri`, where the service allows that.
        """
        record = record_of(request)
        seconds = seconds_left(prefer, release.config.service.deadline_seconds)
        with gateway.admission.request() as held:
            try:
                async with asyncio.timeout(seconds):
                    with record.stage("receive"):
                        data = await gateway.uploads.read(request, held)
                    scored = await gateway.score(data, owner, record)
            except TimeoutError:
                raise (expired if held.received else too_slow)(seconds) from None
        content = score_reply(
            scored.verdict,
            detail,
            image_id=scored.image_id,
            fingerprint=release.fingerprint,
            warning=release.warning,
        )
        return JSONResponse(content, headers={FINGERPRINT_HEADER: release.fingerprint})
