"""The demo bundle's MIDS and its two encoders: random weights, scaled so that verdicts do differ."""

import io
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer
from transformers.utils.logging import disable_progress_bar

from ffaa_core.bundle.demo_text import sentences
from ffaa_core.mids.loading import build_vision, save_trained, save_vision
from ffaa_core.mids.network import MidsConfig, MidsNetwork
from ffaa_core.settings import CROP_SIZE

VOCABULARY = 512
VISION_CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {"image_size": CROP_SIZE, "patch_size": 14, "layers": 4, "width": 128, "head_width": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 8, "width": 32, "heads": 1, "layers": 1},
}
TEXT_CONFIG: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 1,
}

_ATTENTION_GAIN = 2.0
_CLASSIFIER_GAIN = 4.0


def write_demo_mids(mids_dir: Path, vision_dir: Path, text_dir: Path, seed: int = 0) -> None:
    """Write the three parts; the same seed gives the same bytes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        visual = build_vision(VISION_CONFIG)
        text_encoder = T5EncoderModel(T5Config(**TEXT_CONFIG))
        network = MidsNetwork(visual, text_encoder, MidsConfig())
        _enliven(network)
        _centre(network)
    save_trained(network, mids_dir)
    save_vision(visual, VISION_CONFIG, vision_dir)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    text_encoder.save_pretrained(text_dir)
    _write_tokenizer(text_dir)


@torch.no_grad()
def _enliven(network: MidsNetwork) -> None:
    """Make the random network's logits depend on what it is shown.

    Freshly drawn attention is nearly uniform: every query gets the mean of the values, whatever the answer
    says, and MIDS hardly tells one answer of a face from another.
    """
    for module in network.modules():
        if isinstance(module, nn.MultiheadAttention):
            queries_and_keys = 2 * module.embed_dim
            module.in_proj_weight[:queries_and_keys] *= _ATTENTION_GAIN
    network.classifier.weight *= _CLASSIFIER_GAIN


@torch.no_grad()
def _centre(network: MidsNetwork) -> None:
    """Take out of the classifier what every face has in common, or most would get the same verdict.

    Rounded, so that the last bits of this machine's arithmetic do not reach the weights.
    """
    images = nn.functional.interpolate(torch.randn(16, 3, 12, 12), size=CROP_SIZE)
    ids = torch.randint(3, VOCABULARY, (16, 3, 40))
    logits = network.eval()(images, ids, torch.ones_like(ids))
    network.classifier.bias.sub_(logits.mean(dim=(0, 1)).round(decimals=1))


def _write_tokenizer(directory: Path) -> None:
    """A sentencepiece model with T5's special ids, trained on texts of our own."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in sentences() for line in text.splitlines()),
        model_writer=model,
        model_type="unigram",
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (directory / "spiece.model").write_bytes(model.getvalue())
    # Said explicitly, since what is saved would otherwise depend on HF_HUB_OFFLINE.
    T5Tokenizer.from_pretrained(directory, extra_ids=0, local_files_only=True).save_pretrained(directory)
