"""MIDS read off its published description alone: one face at a time, from files in the published layouts.

Nothing of `ffaa_core` is used here. CLIP and T5 are Transformers' own, text becomes ids through the
sentencepiece library, and attention is written out.
"""

import json
import math
from pathlib import Path

import sentencepiece
import torch
from PIL import Image
from sentencepiece import sentencepiece_model_pb2
from torch import Tensor
from torch.nn import functional
from transformers import CLIPImageProcessor, CLIPVisionModel, T5EncoderModel

HEADS = 8
LONGEST_TEXT = 512


class PublishedMids:
    """The logits of one face, as the published code computes them.

    Of `mids.pth` (keys `module.…`), a CLIP folder of Transformers and a T5 folder with `spiece.model`.
    """

    def __init__(self, mids_pth: Path, clip: Path, t5: Path) -> None:
        trained = torch.load(mids_pth, weights_only=True)
        self.weights = {key.removeprefix("module."): tensor.float() for key, tensor in trained.items()}
        self.image_encoder = CLIPVisionModel.from_pretrained(clip, dtype=torch.float32).eval()
        self._take_trained_blocks()
        self.text_encoder = T5EncoderModel.from_pretrained(t5, dtype=torch.float32).eval()
        self.pieces = _pieces_without_dummy_prefix(t5 / "spiece.model")
        self.pad_id = json.loads((t5 / "config.json").read_text())["pad_token_id"]

    def _take_trained_blocks(self) -> None:
        layers = getattr(self.image_encoder, "vision_model", self.image_encoder).encoder.layers
        prefix = "image_encoder.vision_model.encoder.layers."
        numbers = {
            int(key.removeprefix(prefix).split(".")[0]) for key in self.weights if key.startswith(prefix)
        }
        for number in numbers:
            layers[number].load_state_dict(self._under(f"{prefix}{number}"))

    def double(self) -> None:
        """Compute in float64 from now on."""
        self.weights = {name: tensor.double() for name, tensor in self.weights.items()}
        self.image_encoder.double()
        self.text_encoder.double()

    def _under(self, module: str) -> dict[str, Tensor]:
        prefix = module + "."
        return {key.removeprefix(prefix): t for key, t in self.weights.items() if key.startswith(prefix)}

    def pixels(self, crop: Image.Image) -> Tensor:
        """The (1, 3, 336, 336) tensor of a crop of 336 x 336 pixels."""
        processor = CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
        return processor(crop, return_tensors="pt")["pixel_values"]

    def token_ids(self, text: str) -> list[int]:
        """T5's slow tokenizer with legacy=False: the text begins a word, `</s>` ends it, 512 ids at most.

        The unknown token in front keeps SentencePiece from stripping the space, and is taken off again.
        """
        unknown = self.pieces.encode("<unk>")
        ids = self.pieces.encode("<unk>" + "▁" + text)[len(unknown) :]
        return [*ids[: LONGEST_TEXT - 1], self.pieces.eos_id()]

    @torch.inference_mode()
    def logits(self, pixels: Tensor, answers: list[str], *, drop_padding: bool = False) -> Tensor:
        """(answers, 4) of one face: pixels (1, 3, 336, 336).

        `drop_padding` departs from the published: padded positions take part in no attention.
        """
        last, next_to_last = self.image_states(pixels)
        texts = self._text_states(answers)
        if drop_padding:
            texts = [text[: len(self.token_ids(a))] for text, a in zip(texts, answers, strict=True)]
        image1 = self._linear("projector_layer1", last)
        image2 = self._linear("projector_layer2", next_to_last)
        cls1 = self._linear("cls_token_layer1", image1[:1])
        cls2 = self._linear("cls_token_layer2", image2[:1])
        return torch.stack([self._answer_logits(text, (cls1, image1), (cls2, image2)) for text in texts])

    @torch.inference_mode()
    def image_states(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """CLIP's last and next-to-last, (577, width) each."""
        states = self.image_encoder(pixel_values=pixels, output_hidden_states=True).hidden_states
        return states[-1][0], states[-2][0]

    def _text_states(self, answers: list[str]) -> list[Tensor]:
        rows = [self.token_ids(answer) for answer in answers]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [self.pad_id] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return list(self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state)

    def _answer_logits(self, text: Tensor, *layers: tuple[Tensor, Tensor]) -> Tensor:
        tokens = []
        for number, (cls, image) in enumerate(layers, start=1):
            fused_text = self._cross(f"cr_tii{number}", text, image)
            fused_image = self._cross(f"cr_itt{number}", image, text)
            tokens += [
                cls,
                self._cross(f"cr_tii{number}_lr", self._learnt_query(f"lr_tii{number}"), fused_text),
                self._cross(f"cr_itt{number}_lr", self._learnt_query(f"lr_itt{number}"), fused_image),
            ]
        six = torch.cat(tokens)
        for number in range(3):
            name = f"se_attn.{number}"
            six = self._norm(f"{name}.norm", six + self._attention(f"{name}.cross_attn", six, six))
        return self._linear("classifier", six.flatten())

    def _learnt_query(self, name: str) -> Tensor:
        return self.weights[f"fusion_block.{name}"].reshape(1, -1)

    def _cross(self, name: str, query: Tensor, key_and_value: Tensor) -> Tensor:
        block = f"fusion_block.{name}"
        return self._norm(f"{block}.norm", self._attention(f"{block}.cross_attn", query, key_and_value))

    def _attention(self, name: str, query: Tensor, key_and_value: Tensor) -> Tensor:
        """Multi-head attention of (Q, width) over all of (K, width)."""
        into, into_bias = self.weights[f"{name}.in_proj_weight"], self.weights[f"{name}.in_proj_bias"]
        w, b = into.chunk(3), into_bias.chunk(3)
        q, k, v = (query @ w[0].T + b[0], key_and_value @ w[1].T + b[1], key_and_value @ w[2].T + b[2])
        size = q.shape[1] // HEADS
        heads = []
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            heads.append(scores.softmax(dim=1) @ v[:, part])
        return self._linear(f"{name}.out_proj", torch.cat(heads, dim=1))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(
            x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        )


def _pieces_without_dummy_prefix(model: Path) -> sentencepiece.SentencePieceProcessor:
    """The model with legacy=False: no space is put before a text unless it is there."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.read_bytes())
    proto.normalizer_spec.add_dummy_prefix = False
    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
