"""Llama's tokenizer in the `tokenizers` library: from SentencePiece, and with a token for the image.

The original LLaVA code cuts a prompt at `<image>`, gives each piece to the tokenizer by itself, and puts the
image between their ids. SentencePiece begins each text with a space, so there is one after the image, too:
`USER: <image>\\nWhy?` is `▁USER : ▁ <image> ▁ <0x0A> Why ?`. Tokenizers made here give these ids for the
prompt as a whole.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffaa_core.errors import BundleError
from ffaa_core.questions import IMAGE_TOKEN

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPACE = "▁"
_SPACE_AFTER_IMAGE = {
    "type": "Replace",
    "pattern": {"Regex": rf"{IMAGE_TOKEN}(?!{IMAGE_TOKEN}|\z)"},
    "content": IMAGE_TOKEN + _SPACE,
}
"""A normalizer for tokenizers that put no space there. Before another image and at the end there is none."""

_BPE, _CONTROL, _USER_DEFINED = 2, 3, 4


def llama_tokenizer(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], unknown: str, *, legacy: bool = True
) -> "Tokenizer":
    """A byte-pair encoding that splits text as Llama's SentencePiece does.

    Args:
        legacy: Transformers' word for a space after every special token, too, and not at the start of the
            text only.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    encoding = models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(encoding)
    if legacy:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", left=1),
        ]
    )
    return tokenizer


def from_sentencepiece(path: Path, *, legacy: bool) -> "Tokenizer":
    """The tokenizer in Llama's `tokenizer.model`; `legacy` as in `llama_tokenizer`.

    Raises:
        BundleError: it is no SentencePiece model, or of another kind than Llama's.
    """
    from tokenizers import AddedToken
    from transformers.convert_slow_tokenizer import SentencePieceExtractor
    from transformers.tokenization_utils_base import generate_merges

    try:
        model = SentencePieceExtractor(str(path)).proto
    except Exception as error:  # protobuf's DecodeError, of which it has several
        raise BundleError(f"{path} is not a SentencePiece model: {error}") from error
    _check_like_llama(path, model)
    vocabulary = {piece.piece: index for index, piece in enumerate(model.pieces)}
    unknown = model.trainer_spec.unk_piece
    tokenizer = llama_tokenizer(vocabulary, generate_merges(vocabulary), unknown, legacy=legacy)
    control = [piece.piece for piece in model.pieces if piece.type == _CONTROL]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (unknown, *control)]
    )
    return tokenizer


def _check_like_llama(path: Path, model: Any) -> None:
    text, training = model.normalizer_spec, model.trainer_spec
    differs = {
        "is not byte-pair encoding": training.model_type != _BPE,
        "has no byte fallback": not training.byte_fallback,
        "normalizes characters": bool(text.precompiled_charsmap),
        "removes spaces": text.remove_extra_whitespaces,
        "puts no space before a text": not text.add_dummy_prefix,
        "has user-defined symbols": any(piece.type == _USER_DEFINED for piece in model.pieces),
    }
    if wrong := [what for what, does in differs.items() if does]:
        raise BundleError(f"{path} is not a tokenizer of Llama's kind: it {', '.join(wrong)}")


def with_image(tokenizer: "Tokenizer") -> "Tokenizer":
    """The same with `<image>` as a special token, after which text is split as if it began there.

    A token of that name that is there keeps its id.
    """
    from tokenizers import AddedToken, Tokenizer

    tokenizer.add_special_tokens([AddedToken(IMAGE_TOKEN)])
    settings = json.loads(tokenizer.to_str())
    spaces_the_start_only = (settings["pre_tokenizer"] or {}).get("prepend_scheme") == "first"
    image = next(token for token in settings["added_tokens"] if token["content"] == IMAGE_TOKEN)
    image |= {"special": True, "normalized": spaces_the_start_only}
    if spaces_the_start_only:
        settings["normalizer"] = _first(_SPACE_AFTER_IMAGE, settings["normalizer"])
    return Tokenizer.from_str(json.dumps(settings))


def _first(step: dict[str, Any], normalizer: dict[str, Any] | None) -> dict[str, Any]:
    """A normalizer that takes this step before all others, once."""
    others = [normalizer] if normalizer else []
    if normalizer and normalizer["type"] == "Sequence":
        others = normalizer["normalizers"]
    return {"type": "Sequence", "normalizers": [step, *(other for other in others if other != step)]}
