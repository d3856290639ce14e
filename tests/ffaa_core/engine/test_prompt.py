"""What the model is shown: token ids of the published `v1` conversation, and where an answer ends."""

from pathlib import Path

import mistral_common
import pytest
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer

from ffaa_core.convert.tokenizer import TokenizerSource
from ffaa_core.engine.vllm_engine import VllmEngine
from ffaa_core.questions import Question, conversation, wording
from ffaa_core.settings import AnswerSettings
from tests.fixtures.engine import DemoModel, ask_at_length, digest, drawn_crop

BEGIN, END, IMAGE = 1, 2, 1023
IMAGE_TOKENS = 576

# fmt: off
BEFORE_IMAGE = [
    (1, "<s>"), (631, "▁A"), (890, "▁chat"), (911, "▁between"), (354, "▁a"), (910, "▁curious"),
    (533, "▁human"), (383, "▁and"), (489, "▁an"), (908, "▁artificial"), (915, "▁intelligence"),
    (900, "▁assistant."), (382, "▁The"), (658, "▁assistant"), (913, "▁gives"), (914, "▁helpful,"),
    (909, "▁detailed,"), (383, "▁and"), (912, "▁polite"), (901, "▁answers"), (524, "▁to"), (362, "▁the"),
    (898, "▁human's"), (917, "▁questions."), (906, "▁USER:"), (353, "▁"),
]
AFTER_IMAGE = {
    Question.OPEN: [
        (353, "▁"), (13, "<0x0A>"), (381, "The"), (412, "▁image"), (454, "▁is"), (354, "▁a"), (533, "▁human"),
        (448, "▁face"), (996, "▁image."), (928, "▁Is"), (691, "▁it"), (921, "▁real"), (919, "▁or"),
        (925, "▁fake?"), (1013, "▁Why"), (289, "?"), (918, "▁ASSISTANT:"),
    ],
    Question.ASSUME_REAL: [
        (353, "▁"), (13, "<0x0A>"), (949, "This"), (454, "▁is"), (354, "▁a"), (921, "▁real"), (533, "▁human"),
        (924, "▁face."), (931, "▁What"), (953, "▁evidence"), (570, "▁do"), (619, "▁you"), (954, "▁have?"),
        (918, "▁ASSISTANT:"),
    ],
    Question.ASSUME_FAKE: [
        (353, "▁"), (13, "<0x0A>"), (949, "This"), (454, "▁is"), (354, "▁a"), (920, "▁fake"), (533, "▁human"),
        (924, "▁face."), (931, "▁What"), (953, "▁evidence"), (570, "▁do"), (619, "▁you"), (954, "▁have?"),
        (918, "▁ASSISTANT:"),
    ],
}
# fmt: on


def by_hand(question: Question, image_tokens: int) -> list[int]:
    before, after = ([index for index, _ in part] for part in (BEFORE_IMAGE, AFTER_IMAGE[question]))
    return before + [IMAGE] * image_tokens + after


def as_the_original_llava(sentencepiece: SentencePieceProcessor, prompt: str, image: int) -> list[int]:
    """One `<s>`, then the texts around the image, each tokenised by itself: each gets a space in front."""
    before, after = (sentencepiece.encode(text) for text in prompt.split("<image>"))
    return [sentencepiece.bos_id(), *before, image, *after]


@pytest.mark.parametrize("question", Question)
def test_the_conversation_has_the_ids_written_out_here(question: Question, demo_mllm: DemoModel) -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo_mllm.mllm)
    pieces = [piece for part in (BEFORE_IMAGE, AFTER_IMAGE[question]) for _, piece in part]
    ids = tokenizer(conversation(wording(question)))["input_ids"]
    assert ids == by_hand(question, image_tokens=1)
    assert [p for p in tokenizer.convert_ids_to_tokens(ids) if p != "<image>"] == pieces


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("question", Question)
async def test_the_model_is_shown_these_ids_with_576_for_the_image_and_one_begin(
    question: Question, engine: VllmEngine
) -> None:
    output = await ask_at_length(engine, conversation(wording(question)), drawn_crop(500), 0, 1)
    assert output.prompt_token_ids == by_hand(question, IMAGE_TOKENS)
    assert output.prompt_token_ids.count(BEGIN) == 1


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Mistral-7B's own tokenizer, which vLLM's tokenizer package brings along."""
    folder = tmp_path_factory.mktemp("llama")
    model = Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"
    (folder / "tokenizer.model").write_bytes(model.read_bytes())
    return folder


def test_mistrals_tokenizer_gives_the_ids_of_the_original_llava(llama: Path, tmp_path: Path) -> None:
    """Its trap: the newline after `<image>` follows a `▁`, which newer tokenizers leave out."""
    source = TokenizerSource(llama)
    source.write(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    sentencepiece = SentencePieceProcessor(model_file=str(llama / "tokenizer.model"))
    for question in Question:
        prompt = conversation(wording(question))
        ids = as_the_original_llava(sentencepiece, prompt, source.image_token_id)
        assert tokenizer(prompt)["input_ids"] == ids
    around_image = [
        2223,
        725,
        28747,
        28705,
        32000,
        28705,
        13,
        1014,
        3469,
    ]  # ▁US ER : ▁ <image> ▁ \n The ▁image
    ids = tokenizer(conversation(wording(Question.OPEN)))["input_ids"]
    assert ids[ids.index(2223) :][: len(around_image)] == around_image


@pytest.mark.asyncio(loop_scope="session")
async def test_an_answer_ends_with_the_end_token_which_is_not_in_its_text(engine: VllmEngine) -> None:
    crop = drawn_crop(501)
    limit = AnswerSettings().max_tokens
    generation = await engine.generate(conversation(wording(Question.OPEN)), crop, digest(crop), limit)
    assert generation.finish_reason == "stop"
    assert generation.token_ids[-1] == END
    assert generation.token_ids.count(END) == 1
    assert "</s>" not in generation.text


@pytest.mark.asyncio(loop_scope="session")
async def test_an_answer_that_does_not_end_is_cut_at_512_tokens_as_published(engine: VllmEngine) -> None:
    assert AnswerSettings().max_tokens == 512
    crop = drawn_crop(502)
    digits = "[0-9]{600,}"  # each is a token
    prompt = conversation(wording(Question.OPEN))
    generation = await engine.generate(prompt, crop, digest(crop), AnswerSettings().max_tokens, digits)
    assert (generation.finish_reason, generation.generated_tokens) == ("length", 512)
    assert END not in generation.token_ids
