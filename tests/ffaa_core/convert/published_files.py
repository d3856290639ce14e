"""Random weights of MIDS, CLIP and T5 in the files they are published in, at whatever size.

Names and layouts are written out from the published ones; nothing of `ffaa_core` is used. Weights are scaled
so that every tensor tells in the logits.
"""

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

Tensors = dict[str, Tensor]

KINDS = ("weight", "bias")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Defaults are small; CLIP always sees 336 pixels in patches of 14."""

    width: int = 128
    image_heads: int = 2
    image_layers: int = 3
    embed_dim: int = 64
    dim: int = 64
    text_layers: int = 2
    text_heads: int = 4
    vocabulary: int = 640


FULL = Sizes(
    width=1024,
    image_heads=16,
    image_layers=24,
    embed_dim=768,
    dim=768,
    text_layers=12,
    text_heads=12,
    vocabulary=32128,
)


class Drawn:
    """Tensors drawn one after the other, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, std: float) -> Tensor:
        return torch.randn(shape, generator=self.generator) * std

    def linear(self, out: int, into: int, gain: float = 1.0) -> tuple[Tensor, Tensor]:
        return self.normal(out, into, std=gain / math.sqrt(into)), self.normal(out, std=0.1)

    def norm(self, width: int) -> tuple[Tensor, Tensor]:
        return 1 + self.normal(width, std=0.1), self.normal(width, std=0.1)


def clip_block(drawn: Drawn, width: int) -> Tensors:
    """One block of CLIP's vision transformer, as Transformers names it within `encoder.layers.N.`."""
    parts = {
        "self_attn.q_proj": drawn.linear(width, width, gain=2),
        "self_attn.k_proj": drawn.linear(width, width, gain=2),
        "self_attn.v_proj": drawn.linear(width, width),
        "self_attn.out_proj": drawn.linear(width, width),
        "layer_norm1": drawn.norm(width),
        "mlp.fc1": drawn.linear(4 * width, width),
        "mlp.fc2": drawn.linear(width, 4 * width),
        "layer_norm2": drawn.norm(width),
    }
    return _pairs(parts)


def clip_tensors(sizes: Sizes, seed: int = 0) -> Tensors:
    """CLIP as `openai/clip-vit-large-patch14-336` holds it; of its text tower there is a token."""
    drawn, width, patch = Drawn(seed), sizes.width, 3 * 14 * 14
    tensors = {
        "logit_scale": torch.tensor(4.6),
        "text_model.embeddings.token_embedding.weight": drawn.normal(8, 8, std=1),
        "text_model.embeddings.position_ids": torch.arange(8)[None],
        "text_projection.weight": drawn.normal(sizes.embed_dim, 8, std=1),
        "visual_projection.weight": drawn.normal(sizes.embed_dim, width, std=1 / math.sqrt(width)),
        "vision_model.embeddings.class_embedding": drawn.normal(width, std=1),
        "vision_model.embeddings.position_ids": torch.arange(577)[None],
        "vision_model.embeddings.patch_embedding.weight": drawn.normal(
            width, 3, 14, 14, std=1 / math.sqrt(patch)
        ),
        "vision_model.embeddings.position_embedding.weight": drawn.normal(577, width, std=0.5),
    }
    norms = ("vision_model.pre_layrnorm", "vision_model.post_layernorm")
    tensors |= _pairs({norm: drawn.norm(width) for norm in norms})
    for layer in range(sizes.image_layers):
        block = clip_block(drawn, width)
        tensors |= {f"vision_model.encoder.layers.{layer}.{name}": tensor for name, tensor in block.items()}
    return tensors


def write_clip(folder: Path, sizes: Sizes, seed: int = 0) -> Tensors:
    """The hub's CLIP folder: `pytorch_model.bin` and the config of CLIPModel. What was written comes back."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = clip_tensors(sizes, seed)
    torch.save(tensors, folder / "pytorch_model.bin")
    config = {"model_type": "clip", "projection_dim": sizes.embed_dim, "vision_config": vision_config(sizes)}
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


def vision_config(sizes: Sizes) -> dict[str, Any]:
    return {
        "model_type": "clip_vision_model",
        "image_size": 336,
        "patch_size": 14,
        "hidden_size": sizes.width,
        "intermediate_size": 4 * sizes.width,
        "num_hidden_layers": sizes.image_layers,
        "num_attention_heads": sizes.image_heads,
        "projection_dim": sizes.embed_dim,
        "hidden_act": "quick_gelu",
    }


def openai_hub_config(sizes: Sizes) -> dict[str, Any]:
    """`config.json` of `openai/clip-vit-large-patch14-336`, but for the sizes."""
    generation = {
        "bad_words_ids": None,
        "begin_suppress_tokens": None,
        "decoder_start_token_id": None,
        "diversity_penalty": 0.0,
        "do_sample": False,
        "early_stopping": False,
        "encoder_no_repeat_ngram_size": 0,
        "exponential_decay_length_penalty": None,
        "forced_bos_token_id": None,
        "forced_eos_token_id": None,
        "length_penalty": 1.0,
        "max_length": 20,
        "min_length": 0,
        "no_repeat_ngram_size": 0,
        "num_beam_groups": 1,
        "num_beams": 1,
        "num_return_sequences": 1,
        "output_scores": False,
        "remove_invalid_values": False,
        "repetition_penalty": 1.0,
        "return_dict_in_generate": False,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
        "typical_p": 1.0,
    }
    of_both = generation | {
        "_name_or_path": "",
        "add_cross_attention": False,
        "architectures": None,
        "attention_dropout": 0.0,
        "chunk_size_feed_forward": 0,
        "cross_attention_hidden_size": None,
        "dropout": 0.0,
        "finetuning_task": None,
        "hidden_act": "quick_gelu",
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "is_decoder": False,
        "is_encoder_decoder": False,
        "label2id": {"LABEL_0": 0, "LABEL_1": 1},
        "layer_norm_eps": 1e-05,
        "output_attentions": False,
        "output_hidden_states": False,
        "prefix": None,
        "problem_type": None,
        "pruned_heads": {},
        "return_dict": True,
        "sep_token_id": None,
        "task_specific_params": None,
        "tf_legacy_loss": False,
        "tie_encoder_decoder": False,
        "tie_word_embeddings": True,
        "tokenizer_class": None,
        "torch_dtype": None,
        "torchscript": False,
        "transformers_version": "4.21.3",
        "use_bfloat16": False,
    }
    text = {
        "hidden_size": 8,
        "intermediate_size": 32,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "projection_dim": sizes.embed_dim,
    }
    vision = {
        "hidden_size": sizes.width,
        "image_size": 336,
        "intermediate_size": 4 * sizes.width,
        "num_attention_heads": sizes.image_heads,
        "num_hidden_layers": sizes.image_layers,
        "patch_size": 14,
        "projection_dim": sizes.embed_dim,
    }
    tokens = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    no_tokens = dict.fromkeys(tokens)
    only_text = {"model_type": "clip_text_model", "max_position_embeddings": 77, "vocab_size": 49408}
    only_vision = {"model_type": "clip_vision_model", "num_channels": 3}
    return {
        "_name_or_path": "openai/clip-vit-large-patch14-336",
        "architectures": ["CLIPModel"],
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "model_type": "clip",
        "projection_dim": sizes.embed_dim,
        "text_config": of_both | tokens | only_text | text,
        "text_config_dict": text,
        "torch_dtype": "float32",
        "transformers_version": None,
        "vision_config": of_both | no_tokens | only_vision | vision,
        "vision_config_dict": vision,
    }


def openai_tensors(clip: Tensors) -> Tensors:
    """The same CLIP as OpenAI's own file holds it, beginning with its text tower's."""
    tower = {
        "class_embedding": clip["vision_model.embeddings.class_embedding"],
        "positional_embedding": clip["vision_model.embeddings.position_embedding.weight"],
        "proj": clip["visual_projection.weight"].T.contiguous(),
        "conv1.weight": clip["vision_model.embeddings.patch_embedding.weight"],
    }
    for kind in KINDS:
        tower[f"ln_pre.{kind}"] = clip[f"vision_model.pre_layrnorm.{kind}"]
        tower[f"ln_post.{kind}"] = clip[f"vision_model.post_layernorm.{kind}"]
    layers = {name.split(".")[3] for name in clip if name.startswith("vision_model.encoder.layers.")}
    for layer in sorted(layers, key=int):
        their, our = f"vision_model.encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for kind in KINDS:
            query_key_value = [clip[f"{their}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            tower[f"{our}.attn.in_proj_{kind}"] = torch.cat(query_key_value)
            tower[f"{our}.attn.out_proj.{kind}"] = clip[f"{their}.self_attn.out_proj.{kind}"]
            tower[f"{our}.ln_1.{kind}"] = clip[f"{their}.layer_norm1.{kind}"]
            tower[f"{our}.mlp.c_fc.{kind}"] = clip[f"{their}.mlp.fc1.{kind}"]
            tower[f"{our}.mlp.c_proj.{kind}"] = clip[f"{their}.mlp.fc2.{kind}"]
            tower[f"{our}.ln_2.{kind}"] = clip[f"{their}.layer_norm2.{kind}"]
    text_tower = {
        "positional_embedding": torch.zeros(8, 8),
        "text_projection": torch.zeros(8, 8),
        "logit_scale": torch.tensor(4.6),
        "token_embedding.weight": torch.zeros(8, 8),
        "transformer.resblocks.0.ln_1.weight": torch.zeros(8),
        "ln_final.bias": torch.zeros(8),
    }
    return text_tower | {f"visual.{name}": tensor for name, tensor in tower.items()}


def write_torchscript(file: Path, tensors: Tensors) -> None:
    """A TorchScript archive whose modules hold `tensors` under these names, as OpenAI's `.pt` is."""
    program = nn.Module()
    for name, tensor in tensors.items():
        *modules, last = name.split(".")
        module = program
        for part in modules:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.register_buffer(last, tensor)
    program.register_buffer("input_resolution", torch.tensor(336))
    torch.jit.script(program).save(str(file))


def write_t5(folder: Path, sizes: Sizes, seed: int = 1, *, decoder: bool = True) -> Tensors:
    """The hub's T5 folder, with a token of the decoder. What was written of the encoder comes back."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn, dim, inner = Drawn(seed), sizes.dim, 4 * sizes.dim
    tensors = {"shared.weight": drawn.normal(sizes.vocabulary, dim, std=1)}
    for layer in range(sizes.text_layers):
        attention, feed_forward = (f"encoder.block.{layer}.layer.{part}" for part in (0, 1))
        # T5 does not divide the scores by the root of the heads' size.
        tensors[f"{attention}.SelfAttention.q.weight"] = drawn.normal(dim, dim, std=dim**-0.5 / 3)
        for part in "kvo":
            tensors[f"{attention}.SelfAttention.{part}.weight"] = drawn.normal(dim, dim, std=dim**-0.5)
        if layer == 0:
            bias = drawn.normal(32, sizes.text_heads, std=1)
            tensors[f"{attention}.SelfAttention.relative_attention_bias.weight"] = bias
        tensors[f"{attention}.layer_norm.weight"] = drawn.norm(dim)[0]
        tensors[f"{feed_forward}.DenseReluDense.wi.weight"] = drawn.normal(inner, dim, std=dim**-0.5)
        tensors[f"{feed_forward}.DenseReluDense.wo.weight"] = drawn.normal(dim, inner, std=inner**-0.5)
        tensors[f"{feed_forward}.layer_norm.weight"] = drawn.norm(dim)[0]
    tensors["encoder.final_layer_norm.weight"] = drawn.norm(dim)[0]
    of_decoder = {
        "decoder.block.0.layer.1.EncDecAttention.q.weight": drawn.normal(dim, dim, std=1),
        "decoder.final_layer_norm.weight": drawn.norm(dim)[0],
        "lm_head.weight": drawn.normal(8, dim, std=1),
    }
    save_file(tensors | (of_decoder if decoder else {}), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(t5_config(sizes)))
    write_pieces(folder / "spiece.model")
    return tensors


def t5_config(sizes: Sizes) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "is_encoder_decoder": True,
        "vocab_size": sizes.vocabulary,
        "d_model": sizes.dim,
        "d_kv": sizes.dim // sizes.text_heads,
        "d_ff": 4 * sizes.dim,
        "num_layers": sizes.text_layers,
        "num_heads": sizes.text_heads,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def write_pieces(file: Path) -> None:
    """A unigram model of SentencePiece as T5's: 500 pieces at most, `<pad>`, `</s>` and `<unk>` first."""
    words = [
        "Image description: a woman with short dark hair, smiling at the camera.",
        "Forgery reasoning: the skin is waxy, and a soft seam runs along the jaw.",
        "Image description: an older man, turned away from the light; naïve “quotes” and 1/2, fine.",
        "Forgery reasoning: both eyes reflect the same window, which agrees with light from above.",
    ]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words * 4),
        model_writer=model,
        model_type="unigram",
        vocab_size=500,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    file.write_bytes(model.getvalue())


def write_mids(file: Path, sizes: Sizes, seed: int = 2, *, blocks: int = 2, layers: int = 3) -> Tensors:
    """`mids.pth`, with so many blocks of CLIP and layers of self-attention. What was written comes back."""
    drawn, dim = Drawn(seed), sizes.dim
    linear = {
        "projector_layer1": drawn.linear(dim, sizes.width),
        "projector_layer2": drawn.linear(dim, sizes.width),
        "cls_token_layer1": drawn.linear(dim, dim),
        "cls_token_layer2": drawn.linear(dim, dim),
        "classifier": drawn.linear(4, 6 * dim, gain=2),
    }
    tensors = _pairs(linear)
    ways = [f"{way}{layer}" for way in ("tii", "itt") for layer in (1, 2)]
    attentions = [f"fusion_block.cr_{way}{which}" for way in ways for which in ("", "_lr")]
    for name in (*attentions, *(f"se_attn.{layer}" for layer in range(layers))):
        weight, bias = drawn.linear(3 * dim, dim)
        tensors[f"{name}.cross_attn.in_proj_weight"] = weight
        tensors[f"{name}.cross_attn.in_proj_bias"] = bias
        out_proj, norm = drawn.linear(dim, dim), drawn.norm(dim)
        tensors |= _pairs({f"{name}.cross_attn.out_proj": out_proj, f"{name}.norm": norm})
    for way in ways:
        tensors[f"fusion_block.lr_{way}"] = drawn.normal(1, dim, std=1)
    for layer in range(sizes.image_layers - blocks, sizes.image_layers):
        prefix = f"image_encoder.vision_model.encoder.layers.{layer}"
        tensors |= {f"{prefix}.{name}": t for name, t in clip_block(drawn, sizes.width).items()}
    tensors = {f"module.{name}": tensor for name, tensor in tensors.items()}
    torch.save(tensors, file)
    return tensors


def changed(tensors: Tensors, changes: dict[str, Tensor | None]) -> Tensors:
    """`tensors` with some replaced or added, and without those whose change is None."""
    return {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}


def _pairs(modules: dict[str, tuple[Tensor, Tensor]]) -> Tensors:
    """Of each module its weight and bias, by name."""
    return {
        f"{module}.{kind}": t for module, pair in modules.items() for kind, t in zip(KINDS, pair, strict=True)
    }
