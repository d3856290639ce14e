"""T5 as published becomes its encoder and tokenizer alone, and what is wrong with it is named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer, T5EncoderModel

from ffaa_core.convert.text import TextSource
from ffaa_core.errors import BundleError
from ffaa_core.mids.loading import tokenize
from tests.ffaa_core.convert import published_files as published
from tests.ffaa_core.convert.published_files import Sizes

SIZES = Sizes()

TEXTS = [
    "Image description: a woman, smiling.\nForgery reasoning: soft  seams,  waxy\tskin. ",
    "naïve “quotes” \u2013 \ufb01ne ½ \uff26\uff35\uff2c\uff2c é\u00a0x 漢字 🙂 a\u200bb",
    "",
    "the skin is waxy " * 200,
]


@pytest.fixture
def t5(tmp_path: Path) -> Path:
    published.write_t5(tmp_path / "t5", SIZES)
    return tmp_path / "t5"


def test_the_encoder_is_kept_tensor_for_tensor_and_the_decoder_is_not(t5: Path, tmp_path: Path) -> None:
    expected = published.write_t5(t5, SIZES)
    TextSource(t5).write(tmp_path / "text")
    found = load_file(tmp_path / "text" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    _, report = T5EncoderModel.from_pretrained(tmp_path / "text", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@pytest.mark.parametrize(
    "names", [("shared.weight", "encoder.embed_tokens.weight"), ("encoder.embed_tokens.weight",)]
)
def test_the_embedding_is_known_by_both_its_names(names: tuple[str, ...], t5: Path, tmp_path: Path) -> None:
    tensors = load_file(t5 / "model.safetensors")
    embedding = tensors.pop("shared.weight")
    (t5 / "model.safetensors").unlink()
    torch.save(tensors | dict.fromkeys(names, embedding), t5 / "pytorch_model.bin")
    TextSource(t5).write(tmp_path / "text")
    found = load_file(tmp_path / "text" / "model.safetensors")
    assert torch.equal(found["shared.weight"], embedding)
    assert "encoder.embed_tokens.weight" not in found


def test_the_precision_of_the_source_is_kept(t5: Path, tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in load_file(t5 / "model.safetensors").items()}
    save_file(halves, t5 / "model.safetensors")
    TextSource(t5).write(tmp_path / "text")
    found = load_file(tmp_path / "text" / "model.safetensors")
    assert all(torch.equal(found[name], halves[name]) for name in found)
    assert json.loads((tmp_path / "text" / "config.json").read_text())["dtype"] == "float16"


@pytest.mark.parametrize(
    "given", [("spiece.model",), ("tokenizer.json",), ("spiece.model", "tokenizer.json")]
)
def test_ids_are_those_of_the_sentencepiece_library_cut_at_512(
    given: tuple[str, ...], t5: Path, tmp_path: Path
) -> None:
    reference = SentencePieceProcessor(model_file=str(t5 / "spiece.model"))
    TextSource(t5).write(tmp_path / "first")
    shutil.copy(tmp_path / "first" / "tokenizer.json", t5)
    for file in {"spiece.model", "tokenizer.json"} - set(given):
        (t5 / file).unlink()
    TextSource(t5).write(tmp_path / "text")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "text", local_files_only=True)
    ids, mask = tokenize(tokenizer, [TEXTS])
    for text, row, row_mask in zip(TEXTS, ids[0], mask[0], strict=True):
        assert row[row_mask.bool()].tolist() == [*reference.encode(text)[:511], reference.eos_id()]
    assert ids.shape[-1] == 512
    # T5 counts its sentinels down from the last, which is one hundred beyond the pieces.
    last = reference.get_piece_size() + 99
    assert tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_99>"]) == [last, last - 99]


def test_sentinels_that_the_model_has_no_room_for_are_left_out(tmp_path: Path) -> None:
    published.write_pieces(tmp_path / "spiece.model")
    pieces = SentencePieceProcessor(model_file=str(tmp_path / "spiece.model")).get_piece_size()
    published.write_t5(tmp_path / "t5", Sizes(vocabulary=pieces + 3))
    assert len(TextSource(tmp_path / "t5").tokenizer) == pieces + 3


def test_a_tokenizer_json_beside_spiece_model_does_not_count(t5: Path) -> None:
    (t5 / "tokenizer.json").write_text("{}")
    assert TextSource(t5).tokenizer("smiling")["input_ids"]


def test_whatever_is_wrong_with_its_weights_is_named(t5: Path) -> None:
    tensors = load_file(t5 / "model.safetensors")
    del tensors["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    tensors["encoder.block.1.layer.1.DenseReluDense.wi.weight"] = torch.zeros(3, 3)
    tensors["encoder.block.2.layer.0.layer_norm.weight"] = torch.zeros(64)
    save_file(tensors, t5 / "model.safetensors")
    with pytest.raises(BundleError) as error:
        TextSource(t5)
    for line in (
        f"T5's encoder in {t5}",
        "missing: encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight (32, 4)",
        "unknown: encoder.block.2.layer.0.layer_norm.weight (64,)",
        "wrong shape: encoder.block.1.layer.1.DenseReluDense.wi.weight (3, 3), expected (256, 64)",
    ):
        assert line in str(error.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "bert"}, "model_type bert, and not t5"),
        ({"feed_forward_proj": "gated-in-three-parts"}, r"config\.json does not describe T5"),
        ({"d_ff": -1}, r"no T5 can be built of .*config\.json"),
        ({"feed_forward_proj": "silent"}, r"no T5 can be built of .*config\.json"),
        ({"pad_token_id": 5}, "pad_token_id 0 and not 5"),
        ({"vocab_size": 12}, r"tokens where the model knows 12"),
    ],
)
def test_a_configuration_that_does_not_belong_is_refused(
    change: dict[str, object], told: str, t5: Path
) -> None:
    config = json.loads((t5 / "config.json").read_text()) | change
    (t5 / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match=told):
        TextSource(t5)


def test_a_tokenizer_that_is_missing_or_damaged_is_refused_by_name(t5: Path) -> None:
    (t5 / "spiece.model").write_bytes(b"not what it was")
    with pytest.raises(BundleError, match=r"spiece\.model is no tokenizer of T5"):
        TextSource(t5)
    (t5 / "spiece.model").unlink()
    with pytest.raises(BundleError, match=r"neither spiece\.model nor tokenizer\.json"):
        TextSource(t5)
    (t5 / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(BundleError, match=r"tokenizer\.json is no tokenizer of T5"):
        TextSource(t5)


def test_a_file_is_not_a_folder(t5: Path) -> None:
    with pytest.raises(BundleError, match="is not a folder"):
        TextSource(t5 / "model.safetensors")
