"""MIDS, the multi-answer intelligent decision system: how well does each answer fit the picture?

Source: FFAA's published MIDS. Modules and parameters bear the published names, so that its weights map one to
one; every size comes from the encoders and `MidsConfig`.
"""

from typing import Any, cast

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from transformers import T5EncoderModel

N_CLASSES = 4
"""Real image and answer says real, real and says fake, fake and says real, fake and says fake."""

TOKENS_PER_ANSWER = 6


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MidsConfig:
    """Sizes that the encoders do not settle; the defaults are the published ones.

    `trained_blocks` counts the last blocks of the image encoder that were trained with MIDS.
    """

    heads: int = 8
    self_attention_layers: int = 3
    trained_blocks: int = 2


class CrossAttention(nn.Module):
    """Multi-head attention and a layer norm, without a residual."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.cross_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor, keys: Tensor, ignored: Tensor | None = None) -> Tensor:
        """(N, Q, dim) and (N, K, dim) to (N, Q, dim); keys where `ignored` (N, K) is true take no part."""
        attended, _ = self.cross_attn(query, keys, keys, key_padding_mask=ignored, need_weights=False)
        return cast(Tensor, self.norm(attended))


class SelfAttention(nn.Module):
    """Multi-head self-attention, a residual and a layer norm. The published name is `cross_attn` here too."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.cross_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, dim) to (N, T, dim)."""
        attended, _ = self.cross_attn(tokens, tokens, tokens, need_weights=False)
        return cast(Tensor, self.norm(attended + tokens))


class FusionBlock(nn.Module):
    """Picture and text attend to each other, both ways, and a learnt query sums up what each saw.

    `tii` is text asking the image, `itt` the image asking the text; 1 is the image encoder's last state and 2
    its next-to-last.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        for way in ("tii1", "tii2", "itt1", "itt2"):
            setattr(self, f"cr_{way}", CrossAttention(dim, heads))
            setattr(self, f"cr_{way}_lr", CrossAttention(dim, heads))
            setattr(self, f"lr_{way}", nn.Parameter(torch.randn(1, dim)))

    def forward(self, layer: int, image: Tensor, texts: Tensor, ignored: Tensor) -> tuple[Tensor, Tensor]:
        """What text saw in the image, and the image in the text, each one token per answer.

        Args:
            layer: 1 or 2, whose weights to use.
            image: (B, P, dim), one state of each image.
            texts: (B, A, L, dim), its answers.
            ignored: (B, A, L), true at text positions that must take no part.

        Returns:
            Two of (B * A, 1, dim).
        """
        n_images, n_answers, length, dim = texts.shape
        flat_ignored = ignored.flatten(0, 1)
        # Queries do not see each other: an image's answers ask it in one go, and its keys are projected once.
        asked_image = self._attend(f"tii{layer}", texts.reshape(n_images, n_answers * length, dim), image)
        asked_image = asked_image.reshape(n_images * n_answers, length, dim)
        asked_text = self._attend(
            f"itt{layer}", image.repeat_interleave(n_answers, dim=0), texts.flatten(0, 1), flat_ignored
        )
        return (
            self._sum_up(f"tii{layer}", asked_image, flat_ignored),
            self._sum_up(f"itt{layer}", asked_text),
        )

    def _attend(self, way: str, query: Tensor, keys: Tensor, ignored: Tensor | None = None) -> Tensor:
        return cast(Tensor, getattr(self, f"cr_{way}")(query, keys, ignored))

    def _sum_up(self, way: str, seen: Tensor, ignored: Tensor | None = None) -> Tensor:
        learnt = getattr(self, f"lr_{way}").expand(len(seen), 1, -1)
        return cast(Tensor, getattr(self, f"cr_{way}_lr")(learnt, seen, ignored))


class MidsNetwork(nn.Module):
    """An image and its masked answers to four logits per answer.

    `image_encoder` is open_clip's vision transformer, `text_encoder` T5's encoder, which stays frozen.
    """

    image_encoder: Any
    text_encoder: T5EncoderModel

    def __init__(
        self, image_encoder: nn.Module, text_encoder: T5EncoderModel, config: MidsConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config or MidsConfig()
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.text_encoder.requires_grad_(False)
        width = self.image_encoder.ln_post.normalized_shape[0]
        dim, heads = text_encoder.config.d_model, self.config.heads
        self.projector_layer1 = nn.Linear(width, dim)
        self.projector_layer2 = nn.Linear(width, dim)
        self.cls_token_layer1 = nn.Linear(dim, dim)
        self.cls_token_layer2 = nn.Linear(dim, dim)
        self.fusion_block = FusionBlock(dim, heads)
        self.se_attn = nn.ModuleList(
            SelfAttention(dim, heads) for _ in range(self.config.self_attention_layers)
        )
        self.classifier = nn.Linear(TOKENS_PER_ANSWER * dim, N_CLASSES)

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of every answer, independent of what else is in the batch and how far it is padded.

        Args:
            pixel_values: (B, 3, 336, 336) float, normalised as CLIP wants it; each image is encoded once.
            input_ids: (B, A, L), T5's ids of the A masked answers of each image, padded on the right.
            attention_mask: (B, A, L), 1 at tokens and 0 at padding.

        Returns:
            (B, A, 4).
        """
        n_images, n_answers, _ = input_ids.shape
        last, next_to_last = self._image_states(pixel_values)
        texts = self._text_states(input_ids, attention_mask)
        ignored = _beyond_own_longest(attention_mask)
        tokens: list[Tensor] = []
        for layer, state in ((1, self.projector_layer1(last)), (2, self.projector_layer2(next_to_last))):
            cls_layer = self.cls_token_layer1 if layer == 1 else self.cls_token_layer2
            cls_token = cls_layer(state[:, :1]).repeat_interleave(n_answers, dim=0)
            tokens += [cls_token, *self.fusion_block(layer, state, texts, ignored)]
        fused = torch.cat(tokens, dim=1)
        for attention in self.se_attn:
            fused = attention(fused)
        logits = self.classifier(fused.flatten(1))
        return cast(Tensor, logits.reshape(n_images, n_answers, N_CLASSES))

    def _image_states(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """States after the last and next-to-last block, before the final norm, [CLS] first: (B, P, width)."""
        states = self.image_encoder.forward_intermediates(
            pixel_values, indices=2, intermediates_only=True, output_fmt="NLC", output_extra_tokens=True
        )
        next_to_last, last = (
            torch.cat((cls_token, patches), dim=1)
            for cls_token, patches in zip(
                states["image_intermediates_prefix"], states["image_intermediates"], strict=True
            )
        )
        return last, next_to_last

    def _text_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        with torch.no_grad():
            encoded = self.text_encoder(
                input_ids=input_ids.flatten(0, 1), attention_mask=attention_mask.flatten(0, 1)
            )
        return cast(Tensor, encoded.last_hidden_state.unflatten(0, input_ids.shape[:2]))


def is_trained(name: str, network: MidsNetwork) -> bool:
    """Whether the parameter `name` was trained with MIDS, so that it belongs to `mids/` and no encoder."""
    if name.startswith("text_encoder."):
        return False
    if not name.startswith("image_encoder."):
        return True
    n_blocks = len(network.image_encoder.transformer.resblocks)
    first = n_blocks - network.config.trained_blocks
    return any(
        name.startswith(f"image_encoder.transformer.resblocks.{block}.") for block in range(first, n_blocks)
    )


def _beyond_own_longest(attention_mask: Tensor) -> Tensor:
    """(B, A, L), true beyond the longest of an image's own answers.

    The published model pads a face's answers to the longest of them and masks nothing, so padding up to there
    does take part as keys. What lies beyond is there only because of other faces in the batch.
    """
    taken = attention_mask.any(dim=1, keepdim=True)
    return (~taken).expand_as(attention_mask)
