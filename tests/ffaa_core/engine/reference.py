"""The measure of our engine: Transformers and PEFT on the same files, in float32."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from ffaa_core.engine.base import Crop
from tests.fixtures.engine import DemoModel

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Divergence:
    """The first token in which an answer of ours is not the reference's.

    `gap` is by how much the reference prefers its own token to ours: 0 is a tie, which rounding decides.
    """

    place: int
    ours: str
    theirs: str
    gap: float

    def __str__(self) -> str:
        return f"token {self.place}: {self.ours!r}, not {self.theirs!r}, logit gap {self.gap:.2g}"


class Reference:
    """Answers greedily, all crops of a prompt in one batch."""

    def __init__(self, model: DemoModel) -> None:
        self.processor = LlavaProcessor.from_pretrained(model.mllm)
        base = LlavaForConditionalGeneration.from_pretrained(model.mllm, dtype=torch.float32)
        self.model = PeftModel.from_pretrained(base, str(model.adapter)).eval()
        self.end = self.processor.tokenizer.eos_token_id

    def answers(self, prompt: str, crops: Sequence[Crop], *, at_least: int = 0, at_most: int) -> list[Tokens]:
        """Tokens of each answer with the `</s>` that ends it, which is none of the first `at_least`."""
        inputs = self._inputs(prompt, crops)
        with _quick():
            output = self.model.generate(
                **inputs, min_new_tokens=at_least, max_new_tokens=at_most, do_sample=False
            )
        return [self._until_end(tokens) for tokens in output[:, inputs["input_ids"].shape[1] :].tolist()]

    def divergence(self, prompt: str, crop: Crop, ours: Tokens, theirs: Tokens) -> Divergence | None:
        """Where `ours` leaves `theirs`, and how clear the reference is about that token; None if nowhere."""
        if ours == theirs:
            return None
        place = next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
            min(len(ours), len(theirs)),
        )
        a, b = (tokens[place] if place < len(tokens) else self.end for tokens in (ours, theirs))
        inputs = self._inputs(prompt, [crop])
        said = torch.tensor([theirs[:place]], dtype=torch.long)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], said], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with _quick():
            logits = self.model(**inputs).logits[0, -1]
        name = self.processor.tokenizer.convert_ids_to_tokens
        return Divergence(place, name(a), name(b), float(logits[b] - logits[a]))

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """In this context the answers are those of the model alone."""
        with self.model.disable_adapter():
            yield

    def _inputs(self, prompt: str, crops: Sequence[Crop]) -> dict[str, torch.Tensor]:
        images, texts = list(crops), [prompt] * len(crops)
        return dict(self.processor(images=images, text=texts, return_tensors="pt"))

    def _until_end(self, tokens: list[int]) -> Tokens:
        return tuple(tokens[: tokens.index(self.end) + 1] if self.end in tokens else tokens)


@contextmanager
def _quick() -> Iterator[None]:
    """With one thread: more are far slower on so small a model where other processes want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)
