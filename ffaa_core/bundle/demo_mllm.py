"""The demo bundle's multimodal LLM and its LoRA adapter: random weights in the published layout.

Everything about it is as in the published model but its size and its sense: a CLIP tower for 336-pixel
crops, 576 image tokens from the next-to-last layer, an `mlp2x_gelu` projector, a Mistral text model, the
tensor names that vLLM and the published checkpoints use, and a PEFT adapter of rank 32 and alpha 48.
"""

import json
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ffaa_core.bundle.demo_text import sentences
from ffaa_core.convert.llama_tokenizer import llama_tokenizer
from ffaa_core.convert.tokenizer import PATCH_SIZE, write_processor
from ffaa_core.engine.checkpoint import published_name
from ffaa_core.questions import END_OF_ANSWER, IMAGE_TOKEN
from ffaa_core.settings import CROP_SIZE

if TYPE_CHECKING:
    from transformers import LlavaConfig, PreTrainedTokenizerFast

Weights = dict[str, NDArray[np.float32]]

VOCABULARY = 1024
LORA_RANK, LORA_ALPHA = 32, 48
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

CONTEXT = 2048

_GAINS = {"q_proj": 3.0, "k_proj": 3.0, "position_embedding": 0.1}
"""Sharp attention: the next token hangs on single tokens of image and text, so that answers do not loop."""

_NEWLINE = "<0x0A>"
_CONTROL_TOKENS = ("<unk>", "<s>", END_OF_ANSWER)
_END_GAIN, _NEWLINE_GAIN = 2.6, 2.4
_LORA_GAIN = 0.5


def write_demo_mllm(mllm_dir: Path, adapter_dir: Path, seed: int = 0) -> None:
    """Write the model to `mllm_dir` and its adapter to `adapter_dir`; the same seed gives the same bytes."""
    tokenizer = _tokenizer()
    config = _config(tokenizer)
    mllm_dir.mkdir(parents=True, exist_ok=True)
    adapter_dir.mkdir(parents=True, exist_ok=True)
    write_processor(tokenizer, mllm_dir)
    _write_config(mllm_dir, config, tokenizer)
    shapes = _shapes(config)
    weights = {published_name(name): _random(name, shape, seed) for name, shape in shapes.items()}
    _shape_output(weights["language_model.lm_head.weight"], tokenizer)
    _save(weights, mllm_dir / "model.safetensors")
    _write_adapter(adapter_dir, shapes, seed)


def _tokenizer() -> "PreTrainedTokenizerFast":
    """A byte-fallback BPE of `VOCABULARY` tokens, trained on the sentences of `demo_text`.

    It splits as the published one does, whose sentencepiece puts a space before every text between two
    special tokens. Transformers' `LlamaTokenizer` would do so at the start only.
    """
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    tokens, merges = _learned()
    unknown, begin, end = _CONTROL_TOKENS
    backend = llama_tokenizer({token: i for i, token in enumerate(tokens)}, merges, unknown)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokens.index(begin))]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        unk_token=unknown,
        bos_token=begin,
        eos_token=end,
        pad_token=unknown,
        model_max_length=CONTEXT,
        extra_special_tokens={"image_token": IMAGE_TOKEN},
    )


def _learned() -> tuple[list[str], list[tuple[str, str]]]:
    """All tokens but the image's, in the order of their ids, and the merges."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "removed"),
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    first = [*_CONTROL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(first) - 1,
        initial_alphabet=[chr(code) for code in range(ord("!"), ord("~") + 1)],
        show_progress=False,
    )
    trained.train_from_iterator(sentences(), trainer)
    model = json.loads(trained.to_str())["model"]
    return [*first, *model["vocab"]], [tuple(pair) for pair in model["merges"]]


def _config(tokenizer: "PreTrainedTokenizerFast") -> "LlavaConfig":
    from transformers import CLIPVisionConfig, LlavaConfig, MistralConfig

    text = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        sliding_window=None,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        image_size=CROP_SIZE,
        patch_size=PATCH_SIZE,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=64,
    )
    return LlavaConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=tokenizer.get_vocab()[IMAGE_TOKEN],
        image_seq_length=(CROP_SIZE // PATCH_SIZE) ** 2,
        projector_hidden_act="gelu",
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
        architectures=["LlavaForConditionalGeneration"],
        dtype="float32",
    )


def _write_config(folder: Path, config: "LlavaConfig", tokenizer: "PreTrainedTokenizerFast") -> None:
    from transformers import GenerationConfig

    config.save_pretrained(folder)
    GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    ).save_pretrained(folder)


def _shapes(config: "LlavaConfig") -> dict[str, tuple[int, ...]]:
    """Transformers' parameter names and their shapes."""
    import torch
    from transformers import LlavaForConditionalGeneration

    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _random(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Gaussian weights that keep activations near unit scale; norms are ones, biases zeros."""
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if "norm" in name:
        return np.ones(shape, np.float32)
    gain = next((gain for part, gain in _GAINS.items() if part in name), 1.0)
    fan_in = 1 if "embed" in name and len(shape) < 3 else math.prod(shape[1:])
    return _gaussian(name, shape, gain / math.sqrt(fan_in), seed)


def _gaussian(name: str, shape: tuple[int, ...], scale: float, seed: int) -> NDArray[np.float32]:
    """The same numbers on every machine, and for a tensor whatever else there is."""
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return generator.standard_normal(shape, np.float32) * np.float32(scale)


def _shape_output(lm_head: NDArray[np.float32], tokenizer: "PreTrainedTokenizerFast") -> None:
    """Silence bytes and control tokens, and prefer ends, so that fields and answers end by themselves."""
    vocabulary = tokenizer.get_vocab()
    gains = np.ones((VOCABULARY, 1), np.float32)
    gains[[i for token, i in vocabulary.items() if token.startswith("<")]] = 0
    gains[vocabulary[_NEWLINE]], gains[vocabulary[END_OF_ANSWER]] = _NEWLINE_GAIN, _END_GAIN
    lm_head *= gains


def _write_adapter(folder: Path, shapes: dict[str, tuple[int, ...]], seed: int) -> None:
    """A PEFT adapter of the language model; unlike a fresh one its B matrices are not zero."""
    weights: Weights = {}
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if "language_model" not in module or not module.endswith(LORA_TARGETS):
            continue
        key, (rows, columns) = f"base_model.model.{module}", shape
        scale_b = _LORA_GAIN / math.sqrt(LORA_RANK)
        weights[f"{key}.lora_A.weight"] = _gaussian(
            f"{key}.A", (LORA_RANK, columns), 1 / math.sqrt(columns), seed
        )
        weights[f"{key}.lora_B.weight"] = _gaussian(f"{key}.B", (rows, LORA_RANK), scale_b, seed)
    _save(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "",
        "r": LORA_RANK,
        "lora_alpha": LORA_ALPHA,
        "lora_dropout": 0.05,
        "bias": "none",
        "target_modules": rf".*language_model.*\.({'|'.join(LORA_TARGETS)})",
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _save(weights: Weights, path: Path) -> None:
    from safetensors.numpy import save

    path.write_bytes(save(weights, metadata={"format": "pt"}))
