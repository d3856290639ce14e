"""The tokenizer of a published LLaVA, with a token for the image, and the processor that uses it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffaa_core.convert.json_file import AGAIN, read_json
from ffaa_core.convert.llama_tokenizer import from_sentencepiece, with_image
from ffaa_core.errors import BundleError
from ffaa_core.questions import END_OF_ANSWER, IMAGE_TOKEN
from ffaa_core.settings import CROP_SIZE

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerBase

PATCH_SIZE = 14

_ROLES = {"bos_token": "<s>", "eos_token": END_OF_ANSWER, "unk_token": "<unk>", "pad_token": "<unk>"}


class TokenizerSource:
    """A Llama or Mistral tokenizer: `tokenizer.model` or `tokenizer.json`, and what is said beside it.

    `tokenizer.model`, which LLaVA's own code reads, is preferred to a `tokenizer.json` that does not know
    `<image>`.

    Attributes:
        image_token_id: what stands for the image among the ids.
        vocab_size: one more than the largest id: the rows an embedding must have.

    Raises:
        BundleError: there is no such tokenizer in `folder`, or it is of another kind than Llama's.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._tokenizer = _tokenizer(folder)
        except BundleError:
            raise
        except Exception as error:  # of other shapes than they should have, files raise anything
            raise BundleError(
                f"the files of the tokenizer in {folder} are not what they should be "
                f"({type(error).__name__}: {error}). {AGAIN}"
            ) from error
        vocabulary = self._tokenizer.get_vocab()
        self.image_token_id: int = vocabulary[IMAGE_TOKEN]
        self.vocab_size: int = max(vocabulary.values()) + 1

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


def _tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    config = _optional(folder / "tokenizer_config.json") | _optional(folder / "special_tokens_map.json")
    backend = _read(folder, legacy=config.get("legacy", True) is not False)
    _add_stated(backend, _stated_tokens(folder, config), folder)
    if backend.token_to_id(END_OF_ANSWER) is None:
        raise BundleError(
            f"the tokenizer in {folder} is not a Llama one: it has no {END_OF_ANSWER} to end an answer"
        )
    return _with_roles(with_image(backend), config)


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
    return from_sentencepiece(sentencepiece, legacy=legacy)


def _stated_tokens(folder: Path, config: dict[str, Any]) -> dict[int, "AddedToken"]:
    """Tokens that the files beside a tokenizer add to it, by their ids."""
    from tokenizers import AddedToken

    added = {
        index: AddedToken(token, special=True)
        for token, index in _optional(folder / "added_tokens.json").items()
    }
    for index, token in (config.get("added_tokens_decoder") or {}).items():
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


def _with_roles(backend: "Tokenizer", config: dict[str, Any]) -> "PreTrainedTokenizerBase":
    """Transformers' tokenizer, which knows which token begins a text, and puts it there."""
    from transformers import PreTrainedTokenizerFast

    known = backend.get_vocab()
    stated = {role: _content(config.get(role)) for role in _ROLES}
    roles = {role: token if token in known else _ROLES[role] for role, token in stated.items()}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        **{role: token for role, token in roles.items() if token in known},
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
