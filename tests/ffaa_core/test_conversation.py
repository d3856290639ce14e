"""How a conversation goes on after the scorer's own answer, in the published words."""

from ffaa_core.answers import Answer, Determination, Fields
from ffaa_core.conversation import Turn, opening, texts
from ffaa_core.questions import OPEN_QUESTIONS, SYSTEM_SENTENCE, Question
from ffaa_core.verdict import Box, FaceVerdict, JudgedAnswer, Status


def answer(question: Question) -> JudgedAnswer:
    fields = Fields(
        description=f"A face, asked {question}.",
        reasoning="So it is.",
        result=Determination.REAL,
        probability=0.5,
        forgery_type=None,
    )
    text = f" {fields.render()}\n"
    return JudgedAnswer(answer=Answer(question=question, text=text, fields=fields, finish_reason="stop"))


def test_it_begins_with_the_open_question_and_the_answer_that_was_chosen() -> None:
    face = FaceVerdict(
        box=Box(left=0, top=0, right=9, bottom=9),
        detection_score=None,
        status=Status.SCORED,
        crop_sha256="0" * 64,
        chosen=Question.ASSUME_FAKE,
        answers=tuple(map(answer, Question)),
    )
    turn = opening(face, 3)
    assert turn.question == OPEN_QUESTIONS[3]
    assert turn.answer == answer(Question.ASSUME_FAKE).answer.text.strip()


def test_its_texts_are_the_published_template_cut_at_its_special_tokens() -> None:
    turns = [
        Turn(question="Is it real?", answer="Yes."),
        Turn(question="Why?", answer="The hair."),
        Turn(question="And?"),
    ]
    assert texts(turns) == [
        f"{SYSTEM_SENTENCE} USER: ",
        "\nIs it real? ASSISTANT: Yes.",
        "USER: Why? ASSISTANT: The hair.",
        "USER: And? ASSISTANT:",
    ]


def test_an_image_token_that_somebody_wrote_stays_where_it_was_written() -> None:
    assert texts([Turn(question="What is <image>?")])[1:] == ["\nWhat is <image>? ASSISTANT:"]
