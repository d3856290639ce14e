"""MIDS to and from its parts of a bundle: `mids/` (what was trained), `vision/` (open_clip), `text/` (T5)."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel
from transformers.utils.logging import disable_progress_bar

from ffaa_core.bundle.bundle import Bundle
from ffaa_core.errors import BundleError
from ffaa_core.mids.network import MidsConfig, MidsNetwork, is_trained
from ffaa_core.settings import from_mapping

VISION_CONFIG = "open_clip_config.json"
VISION_WEIGHTS = "open_clip_model.safetensors"
MIDS_CONFIG = "config.json"
MIDS_WEIGHTS = "model.safetensors"

MAX_TEXT_TOKENS = 512


def load(bundle: Bundle, device: torch.device | str = "cpu") -> tuple[MidsNetwork, PreTrainedTokenizerBase]:
    """The bundle's MIDS, ready to judge (eval, float32, on `device`), and the tokenizer of its answers.

    Torch's fast path of attention is switched off in this process: it is slower here, and takes more memory.
    Answers become ids by `tokenize` as published, a crop pixel values by `ffaa_core.mids.judge.normalise`.

    Raises:
        BundleError: a part cannot be read, or its weights do not fit its config.
    """
    torch.backends.mha.set_fastpath_enabled(False)
    visual = _checked(load_vision, bundle.vision)
    text_encoder = _checked(_load_text_encoder, bundle.text)
    tokenizer = _checked(_load_tokenizer, bundle.text)
    network = MidsNetwork(visual, text_encoder, _checked(_load_config, bundle.mids))
    _checked(_load_trained, bundle.mids, network)
    return network.eval().to(device), tokenizer


def tokenize(tokenizer: PreTrainedTokenizerBase, answers: list[list[str]]) -> tuple[Tensor, Tensor]:
    """Ids and mask, each (B, A, L), padded to the longest; answers are cut at 512 tokens, as published."""
    n_answers = len(answers[0])
    tokens = tokenizer(
        [text for of_face in answers for text in of_face],
        padding="longest",
        truncation=True,
        max_length=MAX_TEXT_TOKENS,
        return_tensors="pt",
    )
    shape = (len(answers), n_answers)
    return tokens["input_ids"].unflatten(0, shape), tokens["attention_mask"].unflatten(0, shape)


def build_vision(model_config: dict[str, Any]) -> nn.Module:
    """open_clip's vision transformer of these sizes, without its text tower, on the default device."""
    # The text tower is built with it and thrown away: open_clip has no public way to build one alone.
    return open_clip.CLIP(**model_config).visual  # type: ignore[no-any-return]


def load_vision(directory: Path) -> nn.Module:
    """The vision transformer in open_clip's directory layout; a text tower's weights are passed over."""
    config = json.loads((directory / VISION_CONFIG).read_text())["model_cfg"]
    with torch.device("meta"):
        visual = build_vision(config)
    prefix = "visual."
    weights = load_file(directory / VISION_WEIGHTS)
    own = {name.removeprefix(prefix): w.float() for name, w in weights.items() if name.startswith(prefix)}
    visual.load_state_dict(own, assign=True)
    return visual


def save_vision(visual: nn.Module, model_config: dict[str, Any], directory: Path) -> None:
    """Write what `load_vision` reads."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / VISION_CONFIG).write_text(json.dumps({"model_cfg": model_config}, indent=2) + "\n")
    weights = {f"visual.{name}": w.contiguous() for name, w in visual.state_dict().items()}
    save_file(weights, directory / VISION_WEIGHTS)


def save_trained(network: MidsNetwork, directory: Path) -> None:
    """Write `mids/`: the config, and the weights that were trained with MIDS and no others."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MIDS_CONFIG).write_text(json.dumps(asdict(network.config), indent=2) + "\n")
    trained = {n: w.contiguous() for n, w in network.state_dict().items() if is_trained(n, network)}
    save_file(trained, directory / MIDS_WEIGHTS)


def _load_trained(directory: Path, network: MidsNetwork) -> None:
    weights = {name: w.float() for name, w in load_file(directory / MIDS_WEIGHTS).items()}
    expected = {name for name in network.state_dict() if is_trained(name, network)}
    missing, unknown = sorted(expected - weights.keys()), sorted(weights.keys() - expected)
    if missing or unknown:
        raise ValueError(f"missing weights {missing[:5]}, unknown weights {unknown[:5]}")
    network.load_state_dict(weights, strict=False)


def _load_config(directory: Path) -> MidsConfig:
    return from_mapping(MidsConfig, json.loads((directory / MIDS_CONFIG).read_text()))


def _load_text_encoder(directory: Path) -> T5EncoderModel:
    disable_progress_bar()  # type: ignore[no-untyped-call]
    return T5EncoderModel.from_pretrained(directory, dtype=torch.float32, local_files_only=True)


def _load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(directory, local_files_only=True)


def _checked(read: Any, directory: Path, *rest: Any) -> Any:
    """Call `read`; whatever a damaged or ill-fitting part makes it raise becomes an error naming the part."""
    try:
        return read(directory, *rest)
    except Exception as error:
        raise BundleError(f"the bundle's part {directory} cannot be loaded: {error}") from error
