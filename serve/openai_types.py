"""Requests and replies of OpenAI's chat API, as far as this service has them.

Fields that cannot change an answer here are taken and have no effect. Those that ask for what is not offered,
such as tools or a second choice, are taken only with the value that asks for nothing.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from ffaa_core.answers import Determination, ForgeryType

MODEL = "ffaa"
"""The one model's id, whatever bundle is served; `system_fingerprint` says which."""
OWN = "ffaa:"
"""Begins the address of an image that was scored before; its `image_id` follows."""


def _off(value: bool) -> bool:
    if value:
        raise ValueError("must be false")
    return value


Nothing = Annotated[list[Any], Field(max_length=0)]
Zero = Annotated[float, Field(ge=0, le=0)]
Off = Annotated[bool, AfterValidator(_off), WithJsonSchema({"type": "boolean", "const": False})]
"""Unlike `Literal[False]`, which 0 equals."""
Ignored = Field(None, description="has no effect here")
NotOffered = Field(None, description="is not offered: only the value that asks for nothing is taken")


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Request):
    """A part of a message in words."""

    type: Literal["text"]
    text: str


class ImageUrl(_Request):
    """Where an image is; `detail` has no effect, for a face always takes 576 tokens."""

    url: str = Field(description=f"data:image/...;base64,... or {OWN}IMAGE_ID of an image scored before")
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Request):
    """A part of a message that is an image."""

    type: Literal["image_url"]
    image_url: ImageUrl


Words = str | list[TextPart]


class SystemMessage(_Request):
    """What the client's application has to say; it is put before the user's first words."""

    role: Literal["system", "developer"]
    content: Words
    name: str | None = Ignored


class UserMessage(_Request):
    """What the user says. The first one has the image, or begins with its `ffaa:IMAGE_ID`."""

    role: Literal["user"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]
    name: str | None = Ignored


class AssistantMessage(_Request):
    """What the model said before."""

    role: Literal["assistant"]
    content: Words
    name: str | None = Ignored
    refusal: None = NotOffered
    annotations: Nothing | None = NotOffered
    audio: None = NotOffered
    function_call: None = NotOffered
    tool_calls: Nothing | None = NotOffered


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class StreamOptions(_Request):
    """What a stream has besides the answer; padding against eavesdroppers is not offered, and not missed."""

    include_usage: bool | None = Field(None, description="a last chunk without choices says what was used")
    include_obfuscation: bool | None = Ignored


class ResponseFormat(_Request):
    """Words; other formats are not offered."""

    type: Literal["text"]


class ChatRequest(_Request):
    """A conversation about one face of one image, whose next answer is wanted.

    The model has seen the scorer's open question about that face and the answer that was chosen; the messages
    go on from there. A conversation and its answer have room in 2,048 tokens, of which the image takes 576.
    """

    model: str = Field(description=f"`{MODEL}`")
    messages: list[Message] = Field(
        min_length=1, description="system messages first, then user and assistant in turn, a user last"
    )
    face: int | None = Field(
        None, ge=0, description="of the image's faces, from 0; by default the one most likely forged"
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = Field(
        None, ge=1, description="by default 512, or what there is room for"
    )
    max_tokens: int | None = Field(None, ge=1, description="an older name of max_completion_tokens")
    temperature: float | None = Field(None, ge=0, le=2, description="0 by default, as the model is published")
    top_p: float | None = Field(None, gt=0, le=1)
    stop: (
        Annotated[str, Field(min_length=1, max_length=256)]
        | Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=4)]
        | None
    ) = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)

    n: Annotated[int, Field(ge=1, le=1)] | None = NotOffered
    frequency_penalty: Zero | None = NotOffered
    presence_penalty: Zero | None = NotOffered
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = NotOffered
    logprobs: Off | None = NotOffered
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = NotOffered
    tools: Nothing | None = NotOffered
    tool_choice: Literal["none", "auto"] | None = NotOffered
    functions: Nothing | None = NotOffered
    function_call: Literal["none", "auto"] | None = NotOffered
    response_format: ResponseFormat | None = NotOffered
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = NotOffered
    audio: None = NotOffered
    web_search_options: None = NotOffered

    user: str | None = Ignored
    safety_identifier: str | None = Ignored
    prompt_cache_key: str | None = Ignored
    prompt_cache_retention: str | None = Ignored
    metadata: dict[str, Any] | None = Ignored
    store: bool | None = Ignored
    service_tier: str | None = Ignored
    parallel_tool_calls: bool | None = Ignored
    prediction: dict[str, Any] | None = Ignored
    reasoning_effort: str | None = Ignored
    verbosity: str | None = Ignored


class Subject(_Reply):
    """What a conversation is about. A verdict supports a decision; it does not make one.

    `image_id` names the image in further requests (`ffaa:IMAGE_ID`), which need not send it again; null if
    the service could not remember it. `warning` is what must be said with every verdict of these models.
    """

    image_id: str | None
    face: int
    verdict: Determination | None
    forgery_type: ForgeryType | None
    forgery_score: float | None
    warning: str | None


class CachedTokens(_Reply):
    """Tokens that were not computed again."""

    cached_tokens: int


class Usage(_Reply):
    """Tokens; those of the prompt include the image, the scorer's question and its answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class Spoken(_Reply):
    """What the model says."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(_Reply):
    """The one answer."""

    index: Literal[0] = 0
    message: Spoken
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class Completion(_Reply):
    """An answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage
    ffaa: Subject


class Delta(_Reply):
    """What comes next of an answer; the role comes first, and at the end nothing."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(_Reply):
    """A piece of the one answer."""

    index: Literal[0] = 0
    delta: Delta
    logprobs: None = None
    finish_reason: Literal["stop", "length"] | None = None


class Chunk(_Reply):
    """An event of a stream. Only the first has `ffaa`, only the last `usage`, if that was asked for."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    ffaa: Subject | None = None


class ModelCard(_Reply):
    """The model."""

    id: str = MODEL
    object: Literal["model"] = "model"
    created: int = Field(description="when this part of the service began, in Unix seconds")
    owned_by: str = MODEL


class ModelList(_Reply):
    """All models, of which there is one."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
