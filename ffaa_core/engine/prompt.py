"""Conversations as token ids, in which nothing that anybody wrote is a token of another meaning."""

from collections.abc import Sequence
from pathlib import Path

from ffaa_core.conversation import Turn, texts
from ffaa_core.engine.vllm_arguments import CONTEXT
from ffaa_core.errors import ContextLengthError
from ffaa_core.questions import END_OF_ANSWER, IMAGE_TOKEN
from ffaa_core.settings import CROP_SIZE

IMAGE_TOKENS = (CROP_SIZE // 14) ** 2
"""What an image takes of the context: CLIP's patches of 14 pixels."""


class PromptWriter:
    """Writes conversations for one model, with a tokenizer of its own.

    Every text between two special tokens is tokenised by itself, as the original LLaVA does, and special
    tokens are told by their place alone: `<image>` or `</s>` in what somebody wrote is split like any word.

    Args:
        mllm: a LLaVA checkpoint in the Transformers layout.
    """

    def __init__(self, mllm: Path) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(mllm)
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True
        self._image, self._end = map(self._tokenizer.token_to_id, (IMAGE_TOKEN, END_OF_ANSWER))
        self._longest_token = max(map(len, self._tokenizer.get_vocab()))

    def write(self, turns: Sequence[Turn]) -> list[int]:
        """The conversation's token ids, with one for the image.

        Raises:
            ContextLengthError: it has so many characters that it cannot fit into the model's context.
        """
        parts = texts(turns)
        characters = sum(map(len, parts))
        if characters > CONTEXT * self._longest_token:
            raise ContextLengthError(
                f"the model's context is {CONTEXT:,} tokens; {characters:,} characters never fit"
            )
        before_image, *rest = (
            self._tokenizer.encode(part, add_special_tokens=number == 0).ids
            for number, part in enumerate(parts)
        )
        ids = [*before_image, self._image, *rest[0]]
        for part in rest[1:]:
            ids += [self._end, *part]
        return ids

    def room(self, ids: Sequence[int], max_tokens: int | None, default: int) -> int:
        """How many tokens may be generated after a conversation.

        Args:
            ids: what `write` returned.
            max_tokens: as many are asked for; None asks for `default`, or what there is room for if less.

        Raises:
            ContextLengthError: there is no room for them in the model's context.
        """
        prompt = self.prompt_tokens(ids)
        wanted = min(default, max(1, CONTEXT - prompt)) if max_tokens is None else max_tokens
        if prompt + wanted > CONTEXT:
            raise ContextLengthError(
                f"the model's context is {CONTEXT:,} tokens, and this takes {prompt + wanted:,}: {prompt:,} "
                f"of the image and the conversation, and {wanted:,} for the answer"
            )
        return wanted

    def prompt_tokens(self, ids: Sequence[int]) -> int:
        """What a conversation takes of the context: more than its ids, one of which stands for the image."""
        return len(ids) - 1 + IMAGE_TOKENS
