"""What every answer engine offers, and the figures it keeps."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ffaa_core.conversation import Turn

Crop = NDArray[np.uint8]
"""A face crop: (336, 336, 3), RGB."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One generated text. `finish_reason` is `stop` when it ended by itself and `length` when it was cut.

    `cached_tokens` of the `prompt_tokens` were not computed again, for another request had them in common.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next answer of a conversation is generated; as published unless something else is asked for.

    `max_tokens` None means the published 512, or what there is room for. A `temperature` of 0 is greedy, and
    `top_p` and `seed` say nothing then. Generation ends before any of the texts in `stop`.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What came since the last piece of a generated text; the tokens are counted from its beginning.

    Only the last piece has a `finish_reason`, which is as that of `Generation`.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int


@dataclass(frozen=True, kw_only=True)
class EngineFigures:
    """What an engine has done: requests, tokens, and the seconds with at least one request in flight."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Self) -> Self:
        mine, theirs = asdict(self), asdict(other)
        return type(self)(**{name: mine[name] + theirs[name] for name in mine})


class AnswerEngine(Protocol):
    """Generates greedily; requests made at the same time are batched.

    `description` says what it runs with, such as the number type and how the adapter is applied.
    """

    description: dict[str, str]

    async def generate(
        self, prompt: str, crop: Crop, crop_sha256: str, max_tokens: int, constraint: str | None = None
    ) -> Generation:
        """Answer `prompt`, which holds one `<image>`, about `crop`.

        Args:
            prompt: the conversation so far, in the model's template.
            crop: (336, 336, 3) uint8, RGB.
            crop_sha256: digest of the crop's pixels. Equal digests share computed image tokens unseen.
            max_tokens: at most so many new tokens.
            constraint: a regular expression that the whole text must match, or None.

        Raises:
            EngineError: this request could not be answered; others can.
            EngineDeadError: the engine is gone, and every further request will raise this.
        """
        ...

    def figures(self) -> EngineFigures:
        """What was done since the start."""
        ...

    async def close(self) -> None:
        """Stop the engine and its processes; may be called more than once."""
        ...


class ConversingEngine(AnswerEngine, Protocol):
    """An answer engine that goes on talking about a face."""

    def converse(
        self, turns: Sequence[Turn], crop: Crop, crop_sha256: str, sampling: Sampling
    ) -> AsyncGenerator[Piece]:
        """Generate the answer to the last turn, piece by piece. To close the iterator ends the generation.

        Args:
            turns: the conversation, of which only the last turn has no answer.
            crop: as in `generate`, whose computed image tokens are shared.
            crop_sha256: as in `generate`.
            sampling: how the answer is generated.

        Raises:
            ContextLengthError: the conversation does not fit; raised before anything is generated.
            EngineError: as in `generate`.
            EngineDeadError: as in `generate`.
        """
        ...
