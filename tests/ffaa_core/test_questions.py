"""The wording of the questions and the published conversation."""

from ffaa_core.questions import OPEN_QUESTIONS, Question, conversation, wording


def test_the_hypothetical_questions_are_the_papers() -> None:
    assert wording(Question.ASSUME_REAL) == "This is a real human face. What evidence do you have?"
    assert wording(Question.ASSUME_FAKE) == "This is a fake human face. What evidence do you have?"


def test_the_first_of_ten_open_wordings_is_the_papers() -> None:
    assert wording(Question.OPEN) == "The image is a human face image. Is it real or fake? Why?"
    assert len(set(OPEN_QUESTIONS)) == 10


def test_the_conversation_is_the_published_v1_template() -> None:
    assert conversation("Is it real?") == (
        "A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions. "
        "USER: <image>\nIs it real? ASSISTANT:"
    )
