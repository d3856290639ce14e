"""Converted tokenizers against the sentencepiece library, put to use as the original LLaVA code does."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer, LlamaTokenizer, LlavaProcessor, PreTrainedTokenizerBase

from ffaa_core.convert.tokenizer import TokenizerSource
from ffaa_core.errors import BundleError
from ffaa_core.questions import IMAGE_TOKEN, Question, conversation, wording
from tests.fixtures.llama_tokenizer import VOCABULARY, write_sentencepiece_model

BOS = 1
WRITTEN = ("tokenizer.json", "tokenizer_config.json", "processor_config.json")
PROMPTS = [conversation(wording(question)) for question in Question]

pieces = st.sampled_from(
    [
        IMAGE_TOKEN,
        "\n",
        " ",
        "  ",
        "USER: ",
        "The image",
        " face",
        "real or fake?",
        "30",
        "aaa",
        "naïve",
        "☂",
        "▁",
        "\t",
    ]
)
texts = st.lists(pieces, max_size=8).map("".join)


@pytest.fixture(scope="module")
def source(llama_tokenizer_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a folder with `tokenizer.model` and the JSON files given: their names without the suffix."""

    def make(**files: object) -> Path:
        folder = tmp_path_factory.mktemp("source")
        shutil.copy(llama_tokenizer_model, folder)
        for name, content in files.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        return folder

    return make


def convert(source: Path) -> PreTrainedTokenizerBase:
    """What vLLM and Transformers load from the files that are written."""
    written = source / "written"
    TokenizerSource(source).write(written)
    loaded = AutoTokenizer.from_pretrained(written)
    assert isinstance(loaded, PreTrainedTokenizerBase)
    return loaded


@pytest.fixture(scope="module")
def sentencepiece(llama_tokenizer_model: Path) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_file=str(llama_tokenizer_model))


@pytest.fixture(scope="module")
def usual(source: Callable[..., Path]) -> PreTrainedTokenizerBase:
    """Of `tokenizer.model` alone."""
    return convert(source())


@pytest.fixture(scope="module")
def not_legacy(source: Callable[..., Path]) -> PreTrainedTokenizerBase:
    return convert(source(tokenizer_config={"legacy": False}))


def original_ids(text: str, sentencepiece: SentencePieceProcessor, image: int = VOCABULARY) -> list[int]:
    """As the original LLaVA code: the text is cut at the image, and each piece is a text of its own."""
    first, *others = text.split(IMAGE_TOKEN)
    ids = [BOS, *sentencepiece.encode(first)]
    for piece in others:
        ids += [image, *sentencepiece.encode(piece)]
    return ids


@given(text=texts)
@settings(max_examples=300, deadline=None)
@example(text=PROMPTS[0])
@example(text=IMAGE_TOKEN * 3)
def test_ids_are_those_of_sentencepiece_around_the_image_too(
    text: str, usual: PreTrainedTokenizerBase, sentencepiece: SentencePieceProcessor
) -> None:
    assert usual(text)["input_ids"] == original_ids(text, sentencepiece)


@given(text=texts.filter(lambda text: not text.startswith((" ", "▁"))))
@settings(max_examples=300, deadline=None)
@example(text=PROMPTS[0])
@example(text=IMAGE_TOKEN * 3)
def test_also_where_other_special_tokens_are_followed_by_no_space(
    text: str, not_legacy: PreTrainedTokenizerBase, sentencepiece: SentencePieceProcessor
) -> None:
    assert not_legacy(text)["input_ids"] == original_ids(text, sentencepiece)


def test_a_space_stands_on_both_sides_of_the_image(usual: PreTrainedTokenizerBase) -> None:
    tokens = usual.convert_ids_to_tokens(usual(PROMPTS[0])["input_ids"])
    assert tokens[0] == "<s>"
    image = tokens.index(IMAGE_TOKEN)
    assert tokens[image - 3 : image + 3] == ["▁USER", ":", "▁", IMAGE_TOKEN, "▁", "<0x0A>"]


def test_what_follows_an_answer_has_a_space_before_it_only_with_legacy(
    usual: PreTrainedTokenizerBase, not_legacy: PreTrainedTokenizerBase
) -> None:
    for tokenizer, first in ((usual, "▁USER"), (not_legacy, "US")):
        tokens = tokenizer.convert_ids_to_tokens(tokenizer("real</s>USER: Why?")["input_ids"])
        assert tokens[tokens.index("</s>") + 1] == first


def test_text_is_read_back(usual: PreTrainedTokenizerBase, not_legacy: PreTrainedTokenizerBase) -> None:
    text = "Image description: A woman, 30.\nForgery reasoning: naïve  ☂"
    for tokenizer in (usual, not_legacy):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_the_image_is_the_next_id_and_the_vocabulary_has_room_for_it(source: Callable[..., Path]) -> None:
    tokenizer = TokenizerSource(source())
    assert (tokenizer.image_token_id, tokenizer.vocab_size) == (VOCABULARY, VOCABULARY + 1)


@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens": {"<pad>": VOCABULARY}},
        {
            "tokenizer_config": {
                "added_tokens_decoder": {str(VOCABULARY): {"content": "<pad>", "special": True}}
            }
        },
    ],
    ids=lambda files: next(iter(files)),
)
def test_added_tokens_keep_their_ids_and_the_image_comes_after(
    files: dict[str, Any], source: Callable[..., Path]
) -> None:
    tokenizer = convert(source(**files))
    assert tokenizer("a <pad>")["input_ids"][-1] == VOCABULARY
    assert tokenizer.get_vocab()[IMAGE_TOKEN] == VOCABULARY + 1
    assert tokenizer.decode([VOCABULARY], skip_special_tokens=True) == ""


def test_an_image_token_that_is_there_keeps_its_id(source: Callable[..., Path]) -> None:
    tokenizer = TokenizerSource(source(added_tokens={IMAGE_TOKEN: VOCABULARY, "<pad>": VOCABULARY + 1}))
    assert (tokenizer.image_token_id, tokenizer.vocab_size) == (VOCABULARY, VOCABULARY + 2)


@pytest.fixture(scope="module")
def transformers_folder(
    llama_tokenizer_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[bool], Path]:
    """Makes what Transformers makes of `tokenizer.model`: a folder with `tokenizer.json`."""

    def make(with_image: bool) -> Path:
        tokenizer = LlamaTokenizer.from_pretrained(llama_tokenizer_model.parent, add_bos_token=True)
        if with_image:
            tokenizer.add_tokens(["<pad>", IMAGE_TOKEN], special_tokens=True)
        folder = tmp_path_factory.mktemp("transformers")
        tokenizer.save_pretrained(folder)
        assert not (folder / "tokenizer.model").exists()
        return folder

    return make


def test_tokenizer_json_gives_the_same_ids(
    transformers_folder: Callable[[bool], Path], sentencepiece: SentencePieceProcessor
) -> None:
    tokenizer = convert(transformers_folder(False))
    for prompt in PROMPTS:
        assert tokenizer(prompt)["input_ids"] == original_ids(prompt, sentencepiece)


def test_a_tokenizer_json_that_knows_the_image_keeps_its_id_and_gets_the_space_after_it(
    transformers_folder: Callable[[bool], Path],
    llama_tokenizer_model: Path,
    sentencepiece: SentencePieceProcessor,
) -> None:
    folder = transformers_folder(True)
    theirs = AutoTokenizer.from_pretrained(folder)
    shutil.copy(llama_tokenizer_model, folder)
    ours = convert(folder)
    for prompt in PROMPTS:
        assert ours(prompt)["input_ids"] == original_ids(prompt, sentencepiece, image=VOCABULARY + 1)
        assert ours(prompt)["input_ids"] != theirs(prompt)["input_ids"]
        text = prompt.replace(IMAGE_TOKEN, "<pad>")
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_converted_tokenizer_is_converted_to_itself(legacy: bool, source: Callable[..., Path]) -> None:
    folder = source(tokenizer_config={"legacy": legacy})
    TokenizerSource(folder).write(folder / "once")
    TokenizerSource(folder / "once").write(folder / "twice")
    for file in WRITTEN:
        assert (folder / "twice" / file).read_bytes() == (folder / "once" / file).read_bytes()


@pytest.mark.parametrize("legacy", [False, True])
def test_the_processor_puts_576_tokens_in_the_place_of_a_crop(
    legacy: bool, source: Callable[..., Path], sentencepiece: SentencePieceProcessor
) -> None:
    folder = source(tokenizer_config={"legacy": legacy})
    TokenizerSource(folder).write(folder / "written")
    processor = LlavaProcessor.from_pretrained(folder / "written")
    crop = np.zeros((336, 336, 3), np.uint8)
    inputs = processor(text=PROMPTS[0], images=crop, return_tensors="np")
    expected = original_ids(PROMPTS[0].replace(IMAGE_TOKEN, 576 * IMAGE_TOKEN), sentencepiece)
    assert expected.count(VOCABULARY) == 576
    assert inputs["input_ids"][0].tolist() == expected
    assert inputs["pixel_values"].shape == (1, 3, 336, 336)


def test_the_same_tokenizer_is_written_as_the_same_bytes(source: Callable[..., Path]) -> None:
    first, second = source(), source()
    for folder in (first, second):
        TokenizerSource(folder).write(folder / "written")
    for file in WRITTEN:
        assert (first / "written" / file).read_bytes() == (second / "written" / file).read_bytes()


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"neither tokenizer\.model nor tokenizer\.json"):
        TokenizerSource(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
def test_a_damaged_tokenizer_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x0f no tokenizer")
    with pytest.raises(BundleError, match=f"{name} is not a"):
        TokenizerSource(tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens": {"<pad>": None}},
        {"added_tokens": {"<pad>": "next"}},
        {"tokenizer_config": {"added_tokens_decoder": ["<pad>"]}},
        {"tokenizer_config": {"added_tokens_decoder": {"400": None}}},
        {"tokenizer_config": {"added_tokens_decoder": {"last": {"content": "<pad>"}}}},
        {"tokenizer_config": {"added_tokens_decoder": {"400": {"content": 3}}}},
        {"tokenizer_config": {"added_tokens_decoder": {"400": {"content": "<pad>", "special": "very"}}}},
        {"tokenizer": {"model": None}},
        {"tokenizer": {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {}}}},
    ],
    ids=str,
)
def test_a_file_of_another_shape_is_refused_naming_the_folder(
    files: dict[str, Any], source: Callable[..., Path]
) -> None:
    folder = source(**files)
    if "tokenizer" in files:
        (folder / "tokenizer.model").unlink()
    with pytest.raises(BundleError, match=str(folder)):
        TokenizerSource(folder)


@pytest.mark.parametrize("nothing", [None, {}])
def test_tokens_that_are_stated_as_none_are_none(nothing: object, source: Callable[..., Path]) -> None:
    folder = source(tokenizer_config={"added_tokens_decoder": nothing})
    assert TokenizerSource(folder).image_token_id == VOCABULARY


def test_files_that_contradict_each_other_are_refused(source: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match=f"<pad> the id {VOCABULARY}, the files beside it 5"):
        TokenizerSource(source(added_tokens={"<pad>": 5}))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"model_type": "unigram", "hard_vocab_limit": False, "vocab_size": 500}, "not byte-pair encoding"),
        ({"byte_fallback": False}, "no byte fallback"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalizes characters"),
        ({"remove_extra_whitespaces": True}, "removes spaces"),
        ({"add_dummy_prefix": False}, "no space before a text"),
        ({"user_defined_symbols": ["<b>"]}, "user-defined symbols"),
    ],
)
def test_a_tokenizer_that_handles_text_in_another_way_is_refused(
    changed: dict[str, object], what: str, tmp_path: Path
) -> None:
    write_sentencepiece_model(tmp_path / "tokenizer.model", **({"vocab_size": 400} | changed))
    with pytest.raises(BundleError, match=what):
        TokenizerSource(tmp_path)
