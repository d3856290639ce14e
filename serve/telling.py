"""Answers in a conversation as OpenAI's API tells them: whole, or as a stream of events."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ffaa_core.engine.base import Piece
from ffaa_core.errors import ContextLengthError, EngineError
from serve.logs import CLIENT_LEFT, RequestRecord, log
from serve.openai_errors import RefusedError, error_of
from serve.openai_types import (
    MODEL,
    CachedTokens,
    Choice,
    Chunk,
    ChunkChoice,
    Completion,
    Delta,
    Spoken,
    Subject,
    Usage,
)
from serve.problems import ProblemError, expired, failed, unavailable

FINISHED = ("stop", "length")
"""Reasons for which an answer ends as it should."""


@dataclass(frozen=True)
class Reply:
    """What everything that is told of one answer has in common."""

    fingerprint: str
    subject: Subject
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, kind: type[Completion] | type[Chunk]) -> dict[str, Any]:
        """The first fields of a completion, or of each of its chunks."""
        return {
            "id": self.id,
            "object": kind.model_fields["object"].default,
            "created": self.created,
            "model": MODEL,
            "system_fingerprint": self.fingerprint,
        }


async def within(deadline: float, seconds: float, pieces: AsyncGenerator[Piece]) -> AsyncGenerator[Piece]:
    """The pieces of an answer until the loop's clock shows `deadline`.

    Raises:
        ProblemError: 400, the conversation does not fit; 503, the deadline of `seconds` has passed, or the
            engine fails.
    """
    async with aclosing(pieces):
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    piece = await anext(pieces, None)
            except TimeoutError:
                raise expired(seconds) from None
            except ContextLengthError as error:
                raise RefusedError("messages", "context_length_exceeded", str(error)) from None
            except EngineError as error:
                raise unavailable("the model could not answer this") from error
            if piece is None:
                return
            if piece.finish_reason not in (None, *FINISHED):
                raise unavailable("the answer was broken off")
            yield piece


def completion(reply: Reply, pieces: Sequence[Piece]) -> Completion:
    """The whole answer."""
    last = pieces[-1]
    words = Spoken(content="".join(piece.text for piece in pieces))
    choice = Choice(message=words, finish_reason=_finish_reason(last))
    return Completion(**reply.head(Completion), choices=[choice], usage=_usage(last), ffaa=reply.subject)


async def events(
    reply: Reply,
    first: Piece,
    rest: AsyncGenerator[Piece],
    record: RequestRecord,
    *,
    with_usage: bool,
) -> AsyncGenerator[str]:
    """The answer as server-sent events. An error after the first of them is an event, too, and the last one.

    What is logged as the status is then the error's, and 499 if the client did not wait for the end.
    """
    record.status = CLIENT_LEFT
    usage: dict[str, Any] = {"usage": None} if with_usage else {}
    piece = first
    try:
        yield _event(
            _chunk(
                reply,
                Delta(role="assistant", content=""),
                ffaa=reply.subject.model_dump(mode="json"),
                **usage,
            )
        )
        while True:
            if piece.text:
                yield _event(_chunk(reply, Delta(content=piece.text), **usage))
            if piece.finish_reason:
                break
            piece = await anext(rest)
        yield _event(_chunk(reply, Delta(), _finish_reason(piece), **usage))
        if with_usage:
            yield _event(reply.head(Chunk) | {"choices": [], "usage": _usage(piece).model_dump()})
    except Exception as error:
        problem = error if isinstance(error, ProblemError) else failed()
        if problem is not error:
            log.exception("request %s failed", record.id)
        record.status, record.problem = problem.status, problem.kind
        yield _event(error_of(problem))
        return
    record.status = HTTPStatus.OK
    yield "data: [DONE]\n\n"


def _chunk(
    reply: Reply, delta: Delta, finish_reason: Literal["stop", "length"] | None = None, **more: Any
) -> dict[str, Any]:
    choice = ChunkChoice(delta=delta, finish_reason=finish_reason).model_dump()
    choice["delta"] = delta.model_dump(exclude_none=True)
    return reply.head(Chunk) | {"choices": [choice]} | more


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _finish_reason(piece: Piece) -> Literal["stop", "length"]:
    return "length" if piece.finish_reason == "length" else "stop"


def _usage(last: Piece) -> Usage:
    return Usage(
        prompt_tokens=last.prompt_tokens,
        completion_tokens=last.generated_tokens,
        total_tokens=last.prompt_tokens + last.generated_tokens,
        prompt_tokens_details=CachedTokens(cached_tokens=last.cached_tokens),
    )


class EventStream(StreamingResponse):
    """Sends server-sent events, and closes what they came from, also where the client leaves before the end.

    Args:
        events: texts as `text/event-stream` has them.
        stack: what is closed in the end.
        headers: more headers of the reply.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[str], stack: AsyncExitStack, headers: Mapping[str, str]
    ) -> None:
        super().__init__(events, headers=headers)
        self._events, self._stack = events, stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack, aclosing(self._events):
            await super().__call__(scope, receive, send)
