"""An answer of the multimodal LLM: parsing, masking and rendering its five fields.

Source: the published answer format, one field a line; the masked answer is what MIDS reads.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from ffaa_core.questions import Question


class Determination(StrEnum):
    """What an answer, a match score or a verdict says of a face."""

    REAL = "real"
    FAKE = "fake"


class ForgeryType(StrEnum):
    """How a fake face was made."""

    IDENTITY_EXCHANGE = "identity_exchange"
    FACIAL_ATTRIBUTE_MANIPULATION = "facial_attribute_manipulation"
    ENTIRE_FACE_SYNTHESIS = "entire_face_synthesis"

    @property
    def published(self) -> str:
        """The words the published model uses."""
        return self.value.replace("_", " ").capitalize()


DESCRIPTION = "Image description"
REASONING = "Forgery reasoning"
RESULT = "Analysis result"
PROBABILITY = "Probability"
FORGERY_TYPE = "Forgery type"
NO_FORGERY = "N/A"

_ANSWER = re.compile(
    rf"\s*{DESCRIPTION}:(?P<description>.+?)\n"
    rf"\s*{REASONING}:(?P<reasoning>.+?)\n"
    rf"\s*{RESULT}:\s*(?P<result>real|fake)\.?\s*\n"
    rf"\s*{PROBABILITY}:\s*(?P<probability>[01](?:\.\d+)?)\s*\n"
    rf"\s*{FORGERY_TYPE}:\s*(?P<forgery_type>[a-z/ ]+?)\.?\s*",
    re.IGNORECASE | re.DOTALL,
)
_FORGERY_TYPES = {kind.published.lower(): kind for kind in ForgeryType}


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The five fields of a well-formed answer. `forgery_type` is None exactly when the result is real."""

    description: str
    reasoning: str
    result: Determination
    probability: float
    forgery_type: ForgeryType | None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read an answer; None if a field is missing, out of order or range, or contradicts another."""
        match = _ANSWER.fullmatch(text)
        if match is None:
            return None
        description, reasoning = match["description"].strip(), match["reasoning"].strip()
        result = Determination(match["result"].lower())
        probability = float(match["probability"])
        kind = match["forgery_type"].strip().lower()
        forgery_type = _FORGERY_TYPES.get(kind)
        names_no_forgery = kind == NO_FORGERY.lower()
        consistent = names_no_forgery if result is Determination.REAL else forgery_type is not None
        if not (description and reasoning and consistent and probability <= 1):
            return None
        return cls(
            description=description,
            reasoning=reasoning,
            result=result,
            probability=probability,
            forgery_type=forgery_type,
        )

    def render(self) -> str:
        """The answer in the published form; `parse` reads it back."""
        kind = self.forgery_type.published if self.forgery_type else NO_FORGERY
        return (
            f"{self.masked()}\n{RESULT}: {self.result.capitalize()}\n"
            f"{PROBABILITY}: {self.probability:.2f}\n{FORGERY_TYPE}: {kind}"
        )

    def masked(self) -> str:
        """The first two fields only, so that MIDS cannot read off what the answer concluded."""
        return f"{DESCRIPTION}: {self.description}\n{REASONING}: {self.reasoning}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model said to one question about one face, and how it came to say it.

    `text` is the raw text of the last attempt; `fields` is None when even that is malformed. `attempts` is 1,
    or 2 when the first answer was malformed or cut and the question was asked again under the grammar
    (`constrained`). `truncated` says that the token limit cut the last attempt. `finish_reason` is `stop`,
    `length`, or `error: ` and why the engine refused.
    """

    question: Question
    text: str
    fields: Fields | None
    finish_reason: str
    attempts: int = 1
    constrained: bool = False
    truncated: bool = False
