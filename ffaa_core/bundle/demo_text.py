"""Sentences of our own about faces, made from templates: what the demo bundle's tokenizers are trained on."""

from collections.abc import Iterator
from itertools import product

from ffaa_core.answers import Determination, Fields, ForgeryType
from ffaa_core.questions import IMAGE_TOKEN, OPEN_QUESTIONS, Question, conversation, wording

_PERSONS = (
    "a young woman",
    "an older man",
    "a child",
    "a middle-aged man",
    "a woman in her thirties",
    "a person",
)
_LOOKS = (
    "with short dark hair and a calm expression",
    "with long blond hair, smiling at the camera",
    "wearing glasses and a grey coat",
    "with a beard, looking to the left",
    "whose face is turned away from the light",
)
_PLACES = (
    "in front of a plain wall",
    "outdoors, with trees in the background",
    "in a dim room lit from one side",
    "against a blurred street",
)
_REAL_SIGNS = (
    "The skin shows fine pores and natural wrinkles, and the texture is even across cheeks and forehead.",
    "The shadows under the nose and the chin agree with a single source of light from above.",
    "Both eyes reflect the same window, and single strands of hair stand out clearly at the edges.",
)
_FAKE_SIGNS = {
    ForgeryType.IDENTITY_EXCHANGE: (
        "The skin of the face is warmer than that of the neck, and a soft seam runs along the jaw.",
        "The eyebrows appear doubled, and the outline of the face does not follow the head.",
    ),
    ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION: (
        "The teeth merge into one bright band, and the lips do not move with the cheeks.",
        "The mouth is sharper than the rest of the face, and its corners are smeared.",
    ),
    ForgeryType.ENTIRE_FACE_SYNTHESIS: (
        "The two earrings differ, the background melts into the hair, and the skin is waxy without pores.",
        "The pupils are not round, the teeth are not aligned with the nose, and the collar ends in nothing.",
    ),
}


def sentences() -> Iterator[str]:
    """Prompts as they are asked and answers as they are given, always the same and in the same order."""
    for number in range(len(OPEN_QUESTIONS)):
        yield _without_image(wording(Question.OPEN, number))
    for question in (Question.ASSUME_REAL, Question.ASSUME_FAKE):
        yield _without_image(wording(question))
    signs: list[tuple[ForgeryType | None, str]] = [(None, sign) for sign in _REAL_SIGNS]
    signs += [(kind, sign) for kind, found in _FAKE_SIGNS.items() for sign in found]
    for i, (person, look, place) in enumerate(product(_PERSONS, _LOOKS, _PLACES)):
        kind, reasoning = signs[i % len(signs)]
        yield Fields(
            description=f"The image shows {person} {look}, {place}.",
            reasoning=reasoning,
            result=Determination.FAKE if kind else Determination.REAL,
            probability=(50 + i % 51) / 100,
            forgery_type=kind,
        ).render()


def _without_image(sentence: str) -> str:
    """The conversation but for the image, whose token must not become an ordinary word."""
    return conversation(sentence).replace(IMAGE_TOKEN, "")
