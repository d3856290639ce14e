"""MIDS bears the published names, and its logits depend on nothing but the face and its answers."""

from itertools import product

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5Config, T5EncoderModel

from ffaa_core.bundle import Bundle
from ffaa_core.mids import MidsConfig, MidsNetwork, load
from ffaa_core.mids.judge import normalise
from ffaa_core.mids.loading import build_vision, tokenize
from ffaa_core.mids.network import is_trained
from tests.ffaa_core.mids import drawn

Loaded = tuple[MidsNetwork, PreTrainedTokenizerBase]


@pytest.fixture(scope="module")
def loaded(demo_bundle: Bundle) -> Loaded:
    return load(demo_bundle)


@torch.inference_mode()
def logits(loaded: Loaded, crops: list, answers: list[list[str]], *, pad_to: int = 0) -> Tensor:
    network, tokenizer = loaded
    ids, mask = tokenize(tokenizer, answers)
    more = (0, max(0, pad_to - ids.shape[-1]))
    ids, mask = torch.nn.functional.pad(ids, more), torch.nn.functional.pad(mask, more)
    return network(torch.stack([normalise(crop) for crop in crops]), ids, mask)


def far(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def test_a_face_gets_the_same_logits_alone_and_in_batches_of_3_and_32(loaded: Loaded) -> None:
    crops, answers = drawn.faces(32)
    in_32 = logits(loaded, crops, answers)
    for i in (0, 13, 29):
        in_3 = logits(loaded, crops[i : i + 3], answers[i : i + 3])
        assert far(in_3, in_32[i : i + 3]) < 1e-4
        assert far(logits(loaded, crops[i : i + 1], answers[i : i + 1])[0], in_32[i]) < 1e-4


def test_logits_do_not_depend_on_how_far_the_batch_is_padded(loaded: Loaded) -> None:
    crops, answers = drawn.faces(4)
    assert far(logits(loaded, crops, answers), logits(loaded, crops, answers, pad_to=512)) < 1e-4


def test_each_image_is_encoded_once_for_all_its_answers(loaded: Loaded) -> None:
    encoded: list[int] = []
    first_layer = loaded[0].image_encoder.conv1
    hook = first_layer.register_forward_hook(lambda module, inputs, output: encoded.append(len(inputs[0])))
    logits(loaded, *drawn.faces(5))
    hook.remove()
    assert encoded == [5]


def test_only_mids_own_parts_and_the_last_two_blocks_count_as_trained(loaded: Loaded) -> None:
    network = loaded[0]
    trained = {name for name in network.state_dict() if is_trained(name, network)}
    assert not any(name.startswith("text_encoder.") for name in trained)
    blocks = {name.split(".")[3] for name in trained if name.startswith("image_encoder.")}
    assert blocks == {"2", "3"}
    assert all(not p.requires_grad for p in network.text_encoder.parameters())


def test_at_full_size_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        visual = build_vision(
            {
                "embed_dim": 768,
                "quick_gelu": True,
                "vision_cfg": {"image_size": 336, "layers": 24, "width": 1024, "patch_size": 14},
                "text_cfg": {},
            }
        )
        t5_base = T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)
        network = MidsNetwork(visual, T5EncoderModel(t5_base), MidsConfig())
    ours = {
        name: tuple(weight.shape)
        for name, weight in network.state_dict().items()
        if is_trained(name, network) and not name.startswith("image_encoder.")
    }
    assert ours == published_shapes()
    blocks = {name.split(".")[3] for name in network.state_dict() if "resblocks" in name}
    trained = {n.split(".")[3] for n in network.state_dict() if "resblocks" in n and is_trained(n, network)}
    assert len(blocks) == 24
    assert trained == {"22", "23"}


def published_shapes() -> dict[str, tuple[int, ...]]:
    """What mids.pth holds beside the image encoder's blocks, without its `module.` prefix."""
    dim = 768
    shapes: dict[str, tuple[int, ...]] = {"classifier.weight": (4, 6 * dim), "classifier.bias": (4,)}
    for layer in (1, 2):
        shapes[f"projector_layer{layer}.weight"] = (dim, 1024)
        shapes[f"cls_token_layer{layer}.weight"] = (dim, dim)
        shapes[f"projector_layer{layer}.bias"] = shapes[f"cls_token_layer{layer}.bias"] = (dim,)
    attentions = [f"se_attn.{i}" for i in range(3)]
    for way, layer in product(("tii", "itt"), (1, 2)):
        shapes[f"fusion_block.lr_{way}{layer}"] = (1, dim)
        attentions += [f"fusion_block.cr_{way}{layer}", f"fusion_block.cr_{way}{layer}_lr"]
    for attention in attentions:
        shapes[f"{attention}.cross_attn.in_proj_weight"] = (3 * dim, dim)
        shapes[f"{attention}.cross_attn.in_proj_bias"] = (3 * dim,)
        shapes[f"{attention}.cross_attn.out_proj.weight"] = (dim, dim)
        for bias in ("cross_attn.out_proj.bias", "norm.weight", "norm.bias"):
            shapes[f"{attention}.{bias}"] = (dim,)
    return shapes
