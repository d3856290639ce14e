"""The tokenizer of a published LLaVA, with a token for the image, as the bundle's `mllm/` has it.

The original LLaVA code cuts a prompt at `<image>`, gives each piece to the Llama tokenizer by itself and puts
the image between their ids. SentencePiece puts a space before each text it is given, so there is one after
the image, too: `USER: <image>\\nWhy?` is `▁USER : ▁ <image> ▁ <0x0A> Why ?`. The tokenizer written here gives
these ids for the prompt as a whole.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffaa_core.convert.json_file import read_json
from ffaa_core.errors import BundleError
from ffaa_core.questions import END_OF_ANSWER, IMAGE_TOKEN
from ffaa_core.settings import CROP_SIZE

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerBase

PATCH_SIZE = 14

_SPACE = "▁"
_LAST_OF_PIECE = rf"{IMAGE_TOKEN}(?!{IMAGE_TOKEN}|\z)"
"""The image where text follows it: before another image or at the end there is nothing to put a space to."""

_ROLES = {"bos_token": "<s>", "eos_token": END_OF_ANSWER, "unk_token": "<unk>"}
_BPE, _CONTROL, _USER_DEFINED = 2, 3, 4


class TokenizerSource:
    """A Llama or Mistral tokenizer: `tokenizer.model` or `tokenizer.json`, and what is said beside it.

    A `tokenizer.json` that knows `<image>` already is taken as it is. Else `tokenizer.model` is preferred,
    which LLaVA's own code reads.

    Attributes:
        image_token_id: what stands for the image among the ids.
        vocab_size: one more than the largest id: the rows an embedding must have.

    Raises:
        BundleError: there is no such tokenizer in `folder`, or it is of another kind than Llama's.
    """

    def __init__(self, folder: Path) -> None:
        config = _optional(folder / "tokenizer_config.json") | _optional(folder / "special_tokens_map.json")
        backend = _read(folder, legacy=config.get("legacy", True) is not False)
        _add_stated(backend, _stated_tokens(folder, config), folder)
        if backend.token_to_id(END_OF_ANSWER) is None:
            raise BundleError(
                f"the tokenizer in {folder} is not a Llama one: it has no {END_OF_ANSWER} to end an answer"
            )
        if not _knows_image(backend):
            _add_image(backend)
        vocabulary = backend.get_vocab()
        self.image_token_id: int = vocabulary[IMAGE_TOKEN]
        self.vocab_size: int = max(vocabulary.values()) + 1
        self._tokenizer = _with_roles(backend, config)

    def write(self, directory: Path) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json` and `processor_config.json`."""
        directory.mkdir(parents=True, exist_ok=True)
        write_processor(self._tokenizer, directory)


def write_processor(tokenizer: "PreTrainedTokenizerBase", directory: Path) -> None:
    """Write a tokenizer and the processor that puts it and CLIP's image processor for 336 pixels together."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    side = {"height": CROP_SIZE, "width": CROP_SIZE}
    processor = LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor=CLIPImageProcessor(size={"shortest_edge": CROP_SIZE}, crop_size=side),
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(directory)


def _read(folder: Path, legacy: bool) -> "Tokenizer":
    """What `folder` has of a tokenizer, without what stands beside it in other files."""
    from tokenizers import Tokenizer

    fast, sentencepiece = folder / "tokenizer.json", folder / "tokenizer.model"
    if not fast.exists() and not sentencepiece.exists():
        raise BundleError(
            f"{folder} has neither tokenizer.model nor tokenizer.json: copy the tokenizer of the model there"
        )
    backend = None
    if fast.exists():
        try:
            backend = Tokenizer.from_file(str(fast))
        except Exception as error:  # tokenizers raises nothing more special
            raise BundleError(f"{fast} is not a tokenizer: {error}") from error
    if backend is not None and (_knows_image(backend) or not sentencepiece.exists()):
        return backend
    return _from_sentencepiece(sentencepiece, legacy)


def _from_sentencepiece(path: Path, legacy: bool) -> "Tokenizer":
    """Llama's SentencePiece model as a tokenizer of the `tokenizers` library.

    With `legacy`, Transformers' word for it, there is a space after each special token; without, after none.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers.convert_slow_tokenizer import SentencePieceExtractor
    from transformers.tokenization_utils_base import generate_merges

    try:
        model = SentencePieceExtractor(str(path)).proto
    except Exception as error:  # protobuf's DecodeError, of which it has several
        raise BundleError(f"{path} is not a SentencePiece model: {error}") from error
    _check_like_llama(path, model)
    vocabulary = {piece.piece: index for index, piece in enumerate(model.pieces)}
    unknown = model.trainer_spec.unk_piece
    backend = Tokenizer(
        models.BPE(
            vocabulary,
            generate_merges(vocabulary),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if legacy:
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", left=1),
        ]
    )
    control = [piece.piece for piece in model.pieces if piece.type == _CONTROL]
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (unknown, *control)]
    )
    return backend


def _check_like_llama(path: Path, proto: Any) -> None:
    text, training = proto.normalizer_spec, proto.trainer_spec
    differs = {
        "is not byte-pair encoding": training.model_type != _BPE,
        "has no byte fallback": not training.byte_fallback,
        "normalizes characters": bool(text.precompiled_charsmap),
        "removes spaces": text.remove_extra_whitespaces,
        "puts no space before a text": not text.add_dummy_prefix,
        "has user-defined symbols": any(piece.type == _USER_DEFINED for piece in proto.pieces),
    }
    if wrong := [what for what, does in differs.items() if does]:
        raise BundleError(f"{path} is not a tokenizer of Llama's kind: it {', '.join(wrong)}")


def _stated_tokens(folder: Path, config: dict[str, Any]) -> dict[int, "AddedToken"]:
    """Tokens that the files beside a tokenizer add to it, by their ids."""
    from tokenizers import AddedToken

    added = {
        index: AddedToken(token, special=True)
        for token, index in _optional(folder / "added_tokens.json").items()
    }
    for index, token in config.get("added_tokens_decoder", {}).items():
        flags = {name: token[name] for name in ("lstrip", "rstrip", "normalized", "special") if name in token}
        added[int(index)] = AddedToken(token["content"], **flags)
    return added


def _add_stated(backend: "Tokenizer", tokens: dict[int, "AddedToken"], folder: Path) -> None:
    for index, token in sorted(tokens.items()):
        if backend.token_to_id(token.content) is None:
            backend.add_tokens([token])
        if backend.token_to_id(token.content) != index:
            raise BundleError(
                f"the tokenizer in {folder} gives {token.content} the id "
                f"{backend.token_to_id(token.content)}, the files beside it {index}: take all from one model"
            )


def _knows_image(backend: "Tokenizer") -> bool:
    return any(token.content == IMAGE_TOKEN for token in backend.get_added_tokens_decoder().values())


def _add_image(backend: "Tokenizer") -> None:
    """Add the image's token, and see that the text after it is read as a text of its own."""
    from tokenizers import AddedToken, Regex, normalizers

    no_space = _puts_a_space_only_at_the_start(backend)
    if no_space:
        spaced = normalizers.Replace(Regex(_LAST_OF_PIECE), IMAGE_TOKEN + _SPACE)
        before = [backend.normalizer] if backend.normalizer else []
        backend.normalizer = normalizers.Sequence([spaced, *before])
    backend.add_special_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=no_space)])


def _puts_a_space_only_at_the_start(backend: "Tokenizer") -> bool:
    from tokenizers import pre_tokenizers

    splitter = backend.pre_tokenizer
    return isinstance(splitter, pre_tokenizers.Metaspace) and splitter.prepend_scheme == "first"


def _with_roles(backend: "Tokenizer", config: dict[str, Any]) -> "PreTrainedTokenizerBase":
    """Transformers' tokenizer, which knows which token begins a text, and puts it there."""
    from transformers import PreTrainedTokenizerFast

    roles = {role: _content(config.get(role)) or usual for role, usual in _ROLES.items()}
    roles = {role: token for role, token in roles.items() if backend.token_to_id(token) is not None}
    pad = _content(config.get("pad_token")) or roles.get("unk_token", END_OF_ANSWER)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        **roles,
        pad_token=pad,
        add_bos_token=config.get("add_bos_token", True) is not False,
        add_eos_token=False,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        extra_special_tokens={"image_token": IMAGE_TOKEN},
    )


def _content(token: Any) -> str | None:
    """A token as `tokenizer_config.json` writes one: its text, or an object with it."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
