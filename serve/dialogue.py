"""What the messages of a chat request come to: an image, and the turns that follow the scorer's own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ffaa_core.conversation import Turn
from serve.body import decoded
from serve.openai_errors import RefusedError
from serve.openai_types import (
    OWN,
    AssistantMessage,
    ImagePart,
    Message,
    SystemMessage,
    TextPart,
    UserMessage,
)

BETWEEN = "\n\n"
"""Stands between parts of a message, and between system messages and what the user says first."""

_ID = r"[0-9a-f]{32}"
_NAMED_FIRST = re.compile(rf"\s*(?P<url>{OWN}{_ID})(?!\w)\s*")
_DATA = re.compile(r"data:image/[\w.+-]+;base64,", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """`image` is a file's bytes, or the id of an image scored before. Of `turns` only the last is open."""

    image: bytes | str
    turns: tuple[Turn, ...]


def read(messages: Sequence[Message]) -> Dialogue:
    """What the messages come to.

    Raises:
        RefusedError: 400, they are no conversation about one image.
    """
    n_system = next((i for i, m in enumerate(messages) if not isinstance(m, SystemMessage)), len(messages))
    told = [_words(message.content) for message in messages[:n_system] if isinstance(message, SystemMessage)]
    users, assistants = _alternating(messages, n_system)
    url, first = _image_and_words(users[0], n_system)
    words = [first, *(_user_words(user, n_system + 2 * i) for i, user in enumerate(users[1:], 1))]
    for i, said in enumerate(words):
        if not said.strip():
            raise _refused(n_system + 2 * i, "the user says nothing: each user message needs a text")
    words[0] = BETWEEN.join([*filter(None, told), words[0]])
    answers = [_words(assistant.content).strip() for assistant in assistants]
    turns = tuple(
        Turn(question=question.strip(), answer=answer)
        for question, answer in zip(words, [*answers, None], strict=True)
    )
    return Dialogue(image=_image(url, n_system), turns=turns)


def _alternating(
    messages: Sequence[Message], n_system: int
) -> tuple[list[UserMessage], list[AssistantMessage]]:
    users: list[UserMessage] = []
    assistants: list[AssistantMessage] = []
    for i, message in enumerate(messages[n_system:], n_system):
        if isinstance(message, SystemMessage):
            raise _refused(i, "system messages come before all others")
        if isinstance(message, UserMessage) and len(users) == len(assistants):
            users.append(message)
        elif isinstance(message, AssistantMessage) and len(users) > len(assistants):
            assistants.append(message)
        else:
            raise _refused(i, "user and assistant take turns, and the user begins")
    if len(users) == len(assistants):
        raise _refused(len(messages) - 1, "the last message must be the user's")
    return users, assistants


def _image_and_words(message: UserMessage, place: int) -> tuple[str, str]:
    """The image's address and the words of the first user message."""
    if isinstance(message.content, list):
        urls = [part.image_url.url for part in message.content if isinstance(part, ImagePart)]
        words = _words([part for part in message.content if isinstance(part, TextPart)])
        if len(urls) > 1:
            raise _refused(place, "a conversation is about one image")
        if urls:
            return urls[0], words
    else:
        words = message.content
    named = _NAMED_FIRST.match(words)
    if not named:
        raise _refused(
            place,
            "the first user message needs the image: as an image_url with a data URL or with "
            f"{OWN}IMAGE_ID of an image scored before, or {OWN}IMAGE_ID before the text",
            "missing_image",
        )
    return named["url"], words[named.end() :]


def _user_words(message: UserMessage, place: int) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    if any(isinstance(part, ImagePart) for part in content):
        raise _refused(place, "only the first user message has an image; begin another conversation")
    return _words([part for part in content if isinstance(part, TextPart)])


def _words(content: str | Sequence[TextPart]) -> str:
    return content if isinstance(content, str) else BETWEEN.join(part.text for part in content)


def _image(url: str, place: int) -> bytes | str:
    if re.fullmatch(OWN + _ID, url):
        return url.removeprefix(OWN)
    data = _DATA.match(url)
    if not data:
        raise _refused(
            place,
            f"the image must be a data URL (data:image/...;base64,...) or {OWN}IMAGE_ID; no other address is "
            "opened",
            "invalid_image_url",
        )
    try:
        return decoded(url[data.end() :])
    except ValueError:
        raise _refused(place, "the image is no base64", "invalid_base64") from None


def _refused(place: int, message: str, code: str = "invalid_value") -> RefusedError:
    return RefusedError(f"messages.{place}", code, message)
