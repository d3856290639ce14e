"""What MIDS reads: the token ids of a masked answer."""

from ffaa_core.answers import Fields
from ffaa_core.bundle import Bundle
from ffaa_core.mids.loading import load, tokenize

ANSWER = """\
Image description: A young woman, smiling.
Forgery reasoning: Soft seams at the jaw.
Analysis result: Fake
Probability: 0.91
Forgery type: Identity exchange"""

# fmt: off
MASKED = [
    (23, "▁I"), (40, "mage"), (29, "▁d"), (50, "escri"), (20, "p"), (21, "tion"), (4, ":"), (27, "▁A"),
    (132, "▁you"), (54, "ng"), (3, "▁"), (97, "wo"), (94, "man"), (9, ","), (106, "▁sm"), (58, "il"),
    (16, "ing"), (13, "."), (11, "▁F"), (14, "orge"), (10, "r"), (8, "y"), (39, "▁reason"), (16, "ing"),
    (4, ":"), (3, "▁"), (83, "S"), (44, "of"), (18, "t"), (31, "▁s"), (5, "e"), (262, "am"), (6, "s"),
    (75, "▁at"), (3, "▁"), (12, "the"), (211, "▁j"), (217, "aw"), (13, "."), (1, "</s>"),
]
# fmt: on


def test_a_masked_answer_has_the_ids_written_out_here_and_a_shorter_one_is_padded_behind(
    demo_bundle: Bundle,
) -> None:
    """The line break between the fields is a space to T5, and nothing of the verdict is left."""
    fields = Fields.parse(ANSWER)
    assert fields is not None
    _, tokenizer = load(demo_bundle)
    ids, mask = tokenize(tokenizer, [[fields.masked(), "Soft seams."]])
    by_hand = [index for index, _ in MASKED]
    assert ids[0, 0].tolist() == by_hand
    assert tokenizer.convert_ids_to_tokens(by_hand) == [piece for _, piece in MASKED]
    short = [3, 83, 44, 18, 31, 5, 262, 6, 13, 1]
    padding = len(by_hand) - len(short)
    assert ids[0, 1].tolist() == short + [0] * padding
    assert mask[0].tolist() == [[1] * len(by_hand), [1] * len(short) + [0] * padding]
