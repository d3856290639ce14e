"""A conversation about a face: how it goes on after the scorer's own answer.

Source: the published `v1` conversation, in which `</s>` ends every answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ffaa_core.questions import IMAGE_TOKEN, Question, conversation, wording
from ffaa_core.verdict import FaceVerdict


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What was asked, and what was answered; the answer is None in the last turn, where it is wanted."""

    question: str
    answer: str | None = None


def opening(face: FaceVerdict, open_question: int) -> Turn:
    """The turn that begins every conversation: the open question, and the answer that MIDS chose.

    Args:
        face: a scored face.
        open_question: the number of the open question's wording, as in `AnswerSettings`.
    """
    chosen = next(judged.answer for judged in face.answers if judged.answer.question is face.chosen)
    return Turn(question=wording(Question.OPEN, open_question), answer=chosen.text.strip())


def texts(turns: Sequence[Turn]) -> list[str]:
    """The conversation in words: what stands before the image, then each turn.

    The image's token belongs between the first text and the second, and the end of an answer after every
    other text but the last. None of them is in a text unless somebody wrote it, who then means the word.
    """
    before_image, after_image = conversation(turns[0].question).split(IMAGE_TOKEN, maxsplit=1)
    questions = [after_image, *(f"USER: {turn.question} ASSISTANT:" for turn in turns[1:])]
    return [before_image] + [
        question if turn.answer is None else f"{question} {turn.answer}"
        for question, turn in zip(questions, turns, strict=True)
    ]
