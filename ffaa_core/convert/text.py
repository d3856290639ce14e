"""T5 as published, made the `text/` part of a bundle: the encoder and its tokenizer, without the decoder."""

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from sentencepiece import SentencePieceProcessor
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from ffaa_core.convert.json_file import AGAIN, read_json
from ffaa_core.convert.weights import Shape, Weights, check, write_weights
from ffaa_core.errors import BundleError

PIECES = "spiece.model"
TOKENIZER = "tokenizer.json"

_PUBLISHED_SENTINELS = 100
_PASSED_OVER = re.compile(r"decoder\..+|lm_head\..+")
_EMBEDDING, _TIED_EMBEDDING = "shared.weight", "encoder.embed_tokens.weight"


class TextSource:
    """T5's encoder and its tokenizer, checked and ready to be written.

    Attributes:
        config: T5's configuration, of the encoder alone.
        tokenizer: whose ids are those of the slow SentencePiece tokenizer with `legacy=False`.
    """

    def __init__(self, source: Path) -> None:
        """Read names, shapes, configuration and tokenizer.

        Args:
            source: a folder of Transformers with T5 or its encoder, and `spiece.model` or `tokenizer.json`;
                the former is what the published code reads, and goes first.

        Raises:
            BundleError: naming every missing, unknown and mis-shaped tensor, or what ails the tokenizer.
        """
        if not source.is_dir():
            raise BundleError(
                f"{source} is not a folder: give one with T5 in Transformers' layout, such as t5-base"
            )
        self.source = source
        self.config = _config(source)
        self.tokenizer = _tokenizer(source, self.config)
        found = Weights.open(source)
        self._weights = found.renamed(lambda name: _encoder_name(name, _EMBEDDING in found))
        check(self._weights.shapes, _shapes(self.config, source), f"T5's encoder in {source}")

    def write(self, directory: Path) -> None:
        """Write `text/`, in the precision of the source."""
        write_weights(directory, self._weights.meta, self._weights.items)
        self.config.dtype = self._weights.meta[_EMBEDDING].dtype
        self.config.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        if (self.source / PIECES).is_file():
            shutil.copyfile(self.source / PIECES, directory / PIECES)


def _encoder_name(name: str, has_embedding: bool) -> str | None:
    """Under which name a tensor is kept; None for the decoder's, and for the embedding's second name."""
    if name == _TIED_EMBEDDING:
        return None if has_embedding else _EMBEDDING
    return None if _PASSED_OVER.fullmatch(name) else name


def _config(source: Path) -> T5Config:
    file = source / "config.json"
    stated = read_json(file)
    if stated.get("model_type") != "t5":
        raise BundleError(
            f"{file} is of model_type {stated.get('model_type')}, and not t5. Give T5 as published, such as "
            "t5-base"
        )
    try:
        config = T5Config.from_dict(stated)
    except Exception as error:  # Transformers checks each setting in its own way
        raise BundleError(f"{file} does not describe T5 ({error}). {AGAIN}") from error
    config.architectures = ["T5EncoderModel"]
    config.is_encoder_decoder = False
    return config


def _shapes(config: T5Config, source: Path) -> dict[str, Shape]:
    """Names and shapes of the encoder that `config` describes."""
    try:
        with torch.device("meta"):
            encoder = T5EncoderModel(T5Config.from_dict(config.to_dict()))
    except Exception as error:  # whatever a model raises at settings that make no sense
        raise BundleError(f"no T5 can be built of {source / 'config.json'} ({error}). {AGAIN}") from error
    return {name: tuple(tensor.shape) for name, tensor in encoder.named_parameters()}


def _tokenizer(source: Path, config: T5Config) -> T5Tokenizer:
    """The tokenizer of `spiece.model`, or else of `tokenizer.json`, with the sentinels T5 has.

    Raises:
        BundleError: neither is there or can be read, or its ids are not the model's.
    """
    file = next((source / name for name in (PIECES, TOKENIZER) if (source / name).is_file()), None)
    if file is None:
        raise BundleError(f"{source} has neither {PIECES} nor {TOKENIZER}: copy T5's tokenizer there")
    try:
        sentinels = _sentinels(file, config.vocab_size)
        tokenizer = _load_alone(file, sentinels)
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(f"{file} is no tokenizer of T5 ({error}). {AGAIN}") from error
    ids: dict[str, Any] = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    wrong = [
        f"{name} {i} and not {getattr(config, name)}" for name, i in ids.items() if i != getattr(config, name)
    ]
    if len(tokenizer) > config.vocab_size:
        wrong.append(f"{len(tokenizer)} tokens where the model knows {config.vocab_size}")
    if wrong:
        raise BundleError(f"{file} has {', '.join(wrong)}: it does not belong to {source / 'config.json'}")
    return tokenizer


def _load_alone(file: Path, sentinels: int) -> T5Tokenizer:
    """Transformers' tokenizer of this file, whatever else lies beside it."""
    with TemporaryDirectory() as alone:
        shutil.copyfile(file, Path(alone) / file.name)
        return cast(
            T5Tokenizer, T5Tokenizer.from_pretrained(alone, extra_ids=sentinels, local_files_only=True)
        )


def _sentinels(file: Path, vocabulary: int) -> int:
    """How many tokens `<extra_id_…>` there are: they are no pieces, and the model must have room for them."""
    if file.name == TOKENIZER:
        pieces = read_json(file)["model"]["vocab"]
        return sum(piece.startswith("<extra_id_") for piece, _ in pieces)
    room = vocabulary - SentencePieceProcessor(model_file=str(file)).get_piece_size()
    return max(0, min(_PUBLISHED_SENTINELS, room))
