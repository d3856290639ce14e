"""The three questions asked about every face, and the conversation they are asked in.

Source: the FFAA paper (non-hypothetical and hypothetical prompts), and the published `v1` conversation.
"""

from enum import StrEnum

SYSTEM_SENTENCE = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
IMAGE_TOKEN = "<image>"
END_OF_ANSWER = "</s>"

OPEN_QUESTIONS = (
    "The image is a human face image. Is it real or fake? Why?",
    "Is the face in this image real or fake? Give your reasons.",
    "Has this face been forged, or is it a genuine photograph? Explain why.",
    "Judge whether this human face is real or fake, and say why.",
    "Would you call this face real or fake? What makes you think so?",
    "Look at this human face. Is it genuine or forged? Explain your judgement.",
    "Decide whether the face shown here is real or fake and justify the decision.",
    "Here is a picture of a human face. Is it real or fake, and for what reasons?",
    "Tell me if this face image is real or fake, and what supports your answer.",
    "Is this human face authentic or fake? Describe what you base that on.",
)
"""Wordings of the open question, number 0 the paper's; `AnswerSettings.open_question` picks one for a run."""


class Question(StrEnum):
    """What a face is asked: without a hypothesis, supposing it real, supposing it fake."""

    OPEN = "open"
    ASSUME_REAL = "assume_real"
    ASSUME_FAKE = "assume_fake"


def wording(question: Question, open_question: int = 0) -> str:
    """The sentence put to the model; `open_question` is the number of the open question's wording."""
    if question is Question.OPEN:
        return OPEN_QUESTIONS[open_question]
    hypothesis = "real" if question is Question.ASSUME_REAL else "fake"
    return f"This is a {hypothesis} human face. What evidence do you have?"


def conversation(sentence: str) -> str:
    """The prompt of a first turn in the published `v1` template, the image at `IMAGE_TOKEN`."""
    return f"{SYSTEM_SENTENCE} USER: {IMAGE_TOKEN}\n{sentence} ASSISTANT:"
