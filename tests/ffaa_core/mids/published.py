"""An independent reading of the published MIDS: one face at a time, no mask, Transformers' CLIP.

It shares no code with ffaa_core.mids and reads only its weights.
"""

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedTokenizerBase, T5EncoderModel

from ffaa_core.mids import MidsNetwork

HEADS = 8


def logits(
    network: MidsNetwork,
    clip: CLIPVisionModel,
    text_encoder: T5EncoderModel,
    tokenizer: PreTrainedTokenizerBase,
    pixel_values: Tensor,
    answers: list[str],
    *,
    mask_padding: bool = False,
) -> Tensor:
    """(3, 4) for one face. `mask_padding` departs from the published: padding takes part in no attention."""
    weights = network.state_dict()
    padded = tokenizer(answers, padding="longest", truncation=True, max_length=512, return_tensors="pt")
    texts = text_encoder(**padded).last_hidden_state
    states = clip(pixel_values[None], output_hidden_states=True).hidden_states
    rows = []
    for answer, mask in zip(texts, padded["attention_mask"].bool(), strict=True):
        text = answer[mask] if mask_padding else answer
        tokens = []
        for layer, state in ((1, states[-1][0]), (2, states[-2][0])):
            image = _linear(state, weights, f"projector_layer{layer}")
            text_sees = _cross(text, image, weights, f"fusion_block.cr_tii{layer}")
            image_sees = _cross(image, text, weights, f"fusion_block.cr_itt{layer}")
            for_text = weights[f"fusion_block.lr_tii{layer}"]
            for_image = weights[f"fusion_block.lr_itt{layer}"]
            tokens.append(_linear(image[:1], weights, f"cls_token_layer{layer}"))
            tokens.append(_cross(for_text, text_sees, weights, f"fusion_block.cr_tii{layer}_lr"))
            tokens.append(_cross(for_image, image_sees, weights, f"fusion_block.cr_itt{layer}_lr"))
        fused = torch.cat(tokens)
        for i in range(3):
            attended = _attend(fused, fused, weights, f"se_attn.{i}.cross_attn")
            fused = _norm(fused + attended, weights, f"se_attn.{i}.norm")
        rows.append(_linear(fused.reshape(-1), weights, "classifier"))
    return torch.stack(rows)


def clip_twin(visual: nn.Module, *, heads: int) -> CLIPVisionModel:
    """Transformers' CLIP with the weights of open_clip's vision transformer."""
    source = visual.state_dict()
    width, patch = source["conv1.weight"].shape[0], source["conv1.weight"].shape[-1]
    blocks = {name.split(".")[2] for name in source if name.startswith("transformer.resblocks.")}
    clip = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=source["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            num_hidden_layers=len(blocks),
            num_attention_heads=heads,
            image_size=336,
            patch_size=patch,
            hidden_act="quick_gelu",
        )
    )
    mapped = {
        "embeddings.class_embedding": source["class_embedding"],
        "embeddings.patch_embedding.weight": source["conv1.weight"],
        "embeddings.position_embedding.weight": source["positional_embedding"],
    }
    for kind in ("weight", "bias"):
        mapped[f"pre_layrnorm.{kind}"] = source[f"ln_pre.{kind}"]
        mapped[f"post_layernorm.{kind}"] = source[f"ln_post.{kind}"]
        for i in range(len(blocks)):
            ours, theirs = f"transformer.resblocks.{i}", f"encoder.layers.{i}"
            parts = source[f"{ours}.attn.in_proj_{kind}"].chunk(3)
            for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                mapped[f"{theirs}.self_attn.{name}.{kind}"] = part
            mapped[f"{theirs}.self_attn.out_proj.{kind}"] = source[f"{ours}.attn.out_proj.{kind}"]
            mapped[f"{theirs}.layer_norm1.{kind}"] = source[f"{ours}.ln_1.{kind}"]
            mapped[f"{theirs}.layer_norm2.{kind}"] = source[f"{ours}.ln_2.{kind}"]
            mapped[f"{theirs}.mlp.fc1.{kind}"] = source[f"{ours}.mlp.c_fc.{kind}"]
            mapped[f"{theirs}.mlp.fc2.{kind}"] = source[f"{ours}.mlp.c_proj.{kind}"]
    # The published checkpoint's names have `vision_model.` before them, as older Transformers had.
    prefix = "vision_model." if any(n.startswith("vision_model.") for n in clip.state_dict()) else ""
    clip.load_state_dict({f"{prefix}{name}": weight for name, weight in mapped.items()})
    return clip.eval()


def _cross(query: Tensor, keys: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return _norm(_attend(query, keys, weights, f"{name}.cross_attn"), weights, f"{name}.norm")


def _attend(query: Tensor, keys: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """Multi-head attention of (Q, dim) over (K, dim), written out."""
    w_q, w_k, w_v = weights[f"{name}.in_proj_weight"].chunk(3)
    b_q, b_k, b_v = weights[f"{name}.in_proj_bias"].chunk(3)
    q, k, v = query @ w_q.T + b_q, keys @ w_k.T + b_k, keys @ w_v.T + b_v
    size = q.shape[-1] // HEADS
    seen = []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        likeness = torch.softmax(q[:, part] @ k[:, part].T / size**0.5, dim=-1)
        seen.append(likeness @ v[:, part])
    return _linear(torch.cat(seen, dim=-1), weights, f"{name}.out_proj")


def _linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return nn.functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])
