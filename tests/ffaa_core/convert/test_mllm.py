"""Published LLaVA checkpoints, in each of their layouts, come out as the bundle's."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, GenerationConfig, LlavaForConditionalGeneration

from ffaa_core.bundle.bundle import describe_part
from ffaa_core.convert.mllm import MllmSource
from ffaa_core.convert.vision import VisionSource
from ffaa_core.convert.weights import Weights
from ffaa_core.errors import BundleError
from tests.ffaa_core.convert.converted_llava import WITH_NEW_ROWS, assert_same, converted
from tests.ffaa_core.convert.published_files import openai_tensors
from tests.ffaa_core.convert.published_llava import (
    ORIGINAL_CONFIG,
    TEXT,
    VISION,
    VOCABULARY,
    Tensors,
    Vocabulary,
    as_pickle,
    as_safetensors,
    bundle_tensors,
    new_tensors,
    original_tensors,
    random_llava,
    write_checkpoint,
)


@torch.inference_mode()
def logits_of_the_original(
    model: LlavaForConditionalGeneration, before: list[int], after: list[int]
) -> torch.Tensor:
    """As LLaVA's own code computes them: the image's features between the embeddings of two texts."""
    inside = model.model
    states = inside.vision_tower(picture(), output_hidden_states=True).hidden_states
    image = inside.multi_modal_projector(states[-2][:, 1:])
    embed = inside.language_model.embed_tokens
    whole = torch.cat([embed(torch.tensor([before])), image, embed(torch.tensor([after]))], dim=1)
    return model.lm_head(inside.language_model(inputs_embeds=whole).last_hidden_state)


def picture() -> torch.Tensor:
    return torch.randn(1, 3, 336, 336, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def logits_of_the_bundle(mllm: Path, before: list[int], after: list[int]) -> torch.Tensor:
    model = LlavaForConditionalGeneration.from_pretrained(mllm, dtype=torch.float32).eval()
    ids = torch.tensor([[*before, *[model.config.image_token_index] * 576, *after]])
    return model(input_ids=ids, pixel_values=picture()).logits


@pytest.mark.parametrize("save", [as_safetensors, as_pickle])
@pytest.mark.parametrize("kind", ["mistral", "llama"])
def test_the_original_layout_round_trips_and_gives_equal_logits(
    tmp_path: Path, kind: str, save: Callable[[Path, Tensors], None]
) -> None:
    model = random_llava(kind)
    config = ORIGINAL_CONFIG | {"model_type": f"llava_{kind}"}
    source = write_checkpoint(tmp_path / "source", original_tensors(model), config, save)
    assert len(list(source.glob("*model-0*"))) > 2

    assert_same(converted(source, tmp_path / "mllm"), bundle_tensors(model))

    texts = [1, 17, 250, 9], [30, 31, 299]
    expected, found = logits_of_the_original(model, *texts), logits_of_the_bundle(tmp_path / "mllm", *texts)
    assert found.shape == (1, 583, VOCABULARY + 1)
    torch.testing.assert_close(found[..., :VOCABULARY], expected, rtol=1e-5, atol=1e-5)


def test_the_configuration_is_that_of_the_source(
    tmp_path: Path, llava: LlavaForConditionalGeneration
) -> None:
    source = write_checkpoint(tmp_path / "source", original_tensors(llava), ORIGINAL_CONFIG, as_safetensors)

    converted(source, tmp_path / "mllm")

    config = json.loads((tmp_path / "mllm" / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert (config["image_token_index"], config["image_seq_length"]) == (VOCABULARY, 576)
    assert (config["vision_feature_layer"], config["vision_feature_select_strategy"]) == (-2, "default")
    assert config["projector_hidden_act"] == "gelu"
    assert config["dtype"] == "float32"
    assert text["model_type"] == "mistral"
    assert text["rope_parameters"]["rope_theta"] == TEXT["rope_theta"]
    assert text["sliding_window"] is None
    assert {name: text[name] for name in TEXT if name not in ("rope_theta", "vocab_size")} == {
        name: value for name, value in TEXT.items() if name not in ("rope_theta", "vocab_size")
    }
    assert text["vocab_size"] == VOCABULARY + 1
    assert vision["model_type"] == "clip_vision_model"
    assert {name: vision[name] for name in VISION} == VISION
    assert GenerationConfig.from_pretrained(tmp_path / "mllm").eos_token_id == 2


def test_a_tower_of_openai_is_known_by_its_name(tmp_path: Path, llava: LlavaForConditionalGeneration) -> None:
    config = ORIGINAL_CONFIG | {"mm_vision_tower": "openai/clip-vit-large-patch14-336"}
    source = write_checkpoint(tmp_path, original_tensors(llava), config, as_safetensors)

    with pytest.raises(BundleError, match=r"missing: model\.vision_tower.*encoder\.layers\.\{3\.\.23\}"):
        MllmSource(source, Vocabulary())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_dtype_stays(tmp_path: Path, dtype: torch.dtype) -> None:
    model = random_llava(dtype=dtype)
    source = write_checkpoint(tmp_path / "source", original_tensors(model), ORIGINAL_CONFIG, as_pickle)

    assert_same(converted(source, tmp_path / "mllm"), bundle_tensors(model))

    config = json.loads((tmp_path / "mllm" / "config.json").read_text())
    assert config["dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("model_type", ["llava", "llava_next"])
@pytest.mark.parametrize("names", [bundle_tensors, new_tensors])
def test_both_layouts_of_transformers_are_read_with_one_tile(
    tmp_path: Path, llava: LlavaForConditionalGeneration, names: Callable[..., Tensors], model_type: str
) -> None:
    tensors = names(llava)
    config = llava.config.to_dict() | {"model_type": model_type}
    if model_type == "llava_next":
        prefix = "model." if "lm_head.weight" in tensors else ""
        tensors |= {f"{prefix}image_newline": torch.ones(TEXT["hidden_size"])}
        config |= {
            "image_grid_pinpoints": [[336, 672]],
            "architectures": ["LlavaNextForConditionalGeneration"],
        }
    source = write_checkpoint(tmp_path / "source", tensors, config, as_safetensors)

    assert_same(converted(source, tmp_path / "mllm"), bundle_tensors(llava))

    written = json.loads((tmp_path / "mllm" / "config.json").read_text())
    assert written["model_type"] == "llava"
    assert written["text_config"]["rope_parameters"]["rope_theta"] == TEXT["rope_theta"]
    assert "image_grid_pinpoints" not in written


def test_what_transformers_saves_itself_is_read(tmp_path: Path, llava: LlavaForConditionalGeneration) -> None:
    llava.save_pretrained(tmp_path / "source")

    assert_same(converted(tmp_path / "source", tmp_path / "mllm"), bundle_tensors(llava))


def transformers_clip(llava: LlavaForConditionalGeneration, folder: Path) -> Path:
    clip = CLIPModel(CLIPConfig(vision_config=VISION, text_config={"num_hidden_layers": 1}))
    clip.vision_model.load_state_dict(llava.model.vision_tower.state_dict())
    clip.save_pretrained(folder)
    return folder


def openai_clip(llava: LlavaForConditionalGeneration, folder: Path) -> Path:
    clip = {f"vision_model.{name}": value for name, value in llava.model.vision_tower.state_dict().items()}
    projection = {"visual_projection.weight": torch.ones(64, VISION["hidden_size"])}
    torch.save(openai_tensors(clip | projection), folder / "ViT.pt")
    return folder / "ViT.pt"


@pytest.mark.parametrize("clip", [transformers_clip, openai_clip])
def test_a_checkpoint_without_tower_takes_the_clip_given(
    tmp_path: Path,
    llava: LlavaForConditionalGeneration,
    clip: Callable[[LlavaForConditionalGeneration, Path], Path],
) -> None:
    of_original = original_tensors(llava)
    without = {name: tensor for name, tensor in of_original.items() if "vision_tower" not in name}
    source = write_checkpoint(tmp_path / "source", without, ORIGINAL_CONFIG, as_pickle)

    found = converted(source, tmp_path / "mllm", vision=VisionSource(clip(llava, tmp_path)))

    assert_same(found, bundle_tensors(llava))
    vision = json.loads((tmp_path / "mllm" / "config.json").read_text())["vision_config"]
    assert {name: vision[name] for name in VISION} == VISION
    with pytest.raises(BundleError, match="no vision tower of its own: give the CLIP"):
        MllmSource(source, Vocabulary())


def test_rows_for_new_tokens_are_the_mean_and_never_the_likeliest(
    tmp_path: Path, llava: LlavaForConditionalGeneration
) -> None:
    source = write_checkpoint(tmp_path / "source", original_tensors(llava), ORIGINAL_CONFIG, as_safetensors)
    tokenizer = Vocabulary(vocab_size=VOCABULARY + 3)

    MllmSource(source, tokenizer).write(tmp_path / "mllm")

    written = Weights.open(tmp_path / "mllm")
    for name in WITH_NEW_ROWS:
        rows = written.read(name)
        assert rows.shape == (VOCABULARY + 3, TEXT["hidden_size"])
        torch.testing.assert_close(rows[VOCABULARY:], rows[:VOCABULARY].mean(0).expand(3, -1))
    logits = torch.randn(100, TEXT["hidden_size"]) @ written.read("language_model.lm_head.weight").T
    assert (logits.argmax(1) < VOCABULARY).all()


def test_no_row_is_added_for_a_token_that_has_one(
    tmp_path: Path, llava: LlavaForConditionalGeneration
) -> None:
    source = write_checkpoint(tmp_path / "source", original_tensors(llava), ORIGINAL_CONFIG, as_safetensors)

    MllmSource(source, Vocabulary(image_token_id=300, vocab_size=301)).write(tmp_path / "mllm")

    assert Weights.open(tmp_path / "mllm").shapes[WITH_NEW_ROWS[0]] == (VOCABULARY, TEXT["hidden_size"])
    config = json.loads((tmp_path / "mllm" / "config.json").read_text())
    assert (config["image_token_index"], config["text_config"]["vocab_size"]) == (300, VOCABULARY)


def test_tensors_are_replaced_and_transformed(tmp_path: Path, llava: LlavaForConditionalGeneration) -> None:
    source = write_checkpoint(tmp_path / "source", original_tensors(llava), ORIGINAL_CONFIG, as_safetensors)
    bias, query = (
        "multi_modal_projector.linear_1.bias",
        "language_model.model.layers.1.self_attn.q_proj.weight",
    )
    new_bias = torch.full((TEXT["hidden_size"],), 7, dtype=torch.float16)

    MllmSource(source, Vocabulary()).write(
        tmp_path / "mllm",
        replace={bias: new_bias},
        transform=lambda name, tensor: tensor * 2 if name == query else tensor,
    )

    expected = bundle_tensors(llava)
    expected |= {bias: new_bias, query: expected[query] * 2}
    assert_same(dict(Weights.open(tmp_path / "mllm").items()), expected)


def test_the_bytes_written_hang_on_the_weights_alone(
    tmp_path: Path, llava: LlavaForConditionalGeneration
) -> None:
    tensors = original_tensors(llava)
    backwards = dict(reversed(tensors.items()))
    one = write_checkpoint(tmp_path / "one", tensors, ORIGINAL_CONFIG, as_safetensors)
    two = write_checkpoint(tmp_path / "two", backwards, ORIGINAL_CONFIG, as_pickle, shard_bytes=90_000)

    for source, to in ((one, "a"), (one, "b"), (two, "c")):
        converted(source, tmp_path / to)

    digests = [describe_part(tmp_path / to).sha256 for to in "abc"]
    assert len(set(digests)) == 1


QUERY, NORM = "model.layers.1.self_attn.q_proj.weight", "model.norm.weight"
FIRST_PROJECTION = "model.mm_projector.0.weight"
PATCHES = "model.vision_tower.vision_tower.vision_model.embeddings.patch_embedding.weight"
CORRUPTED: dict[str, tuple[Callable[[Tensors], Tensors], list[str]]] = {
    "a missing key": (
        lambda t: {k: v for k, v in t.items() if k != QUERY},
        [rf"missing: {QUERY} \(64, 64\)"],
    ),
    "a missing layer": (
        lambda t: {k: v for k, v in t.items() if not k.startswith("model.layers.1.")},
        [
            r"missing: model\.layers\.1\.mlp\.down_proj\.weight \(64, 96\)",
            r"missing: model\.layers\.1\.self_attn",
        ],
    ),
    "no lm_head": (
        lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"},
        [r"missing: lm_head\.weight"],
    ),
    "no patches": (
        lambda t: {k: v for k, v in t.items() if k != PATCHES},
        [r"embeddings\.patch_embedding\.weight"],
    ),
    "a wrong shape": (
        lambda t: t | {FIRST_PROJECTION: torch.ones(64, 100)},
        [rf"of the wrong shape: {FIRST_PROJECTION} \(64, 100\), expected \(64, 128\)"],
    ),
    "a transposed weight": (
        lambda t: t | {"model.layers.0.mlp.up_proj.weight": torch.ones(64, 96)},
        [r"model\.layers\.0\.mlp\.up_proj\.weight \(64, 96\), expected \(96, 64\)"],
    ),
    "another vocabulary": (
        lambda t: t | {"lm_head.weight": torch.ones(333, 64)},
        [r"lm_head\.weight \(333, 64\), expected \(320, 64\)"],
    ),
    "an extra key": (
        lambda t: t | {"model.mm_projector.4.weight": torch.ones(3)},
        [r"unknown: model\.mm_projector\.4\.weight \(3,\)"],
    ),
    "an adapter among the weights": (
        lambda t: t | {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(4, 64)},
        [r"unknown: base_model\.model\.model\.layers\.0\.self_attn\.q_proj\.lora_A\.weight"],
    ),
    "quantised": (
        lambda t: t | {QUERY: torch.ones(64, 64, dtype=torch.int8)},
        [rf"holds integers in {QUERY}: it is quantised"],
    ),
    "several at once": (
        lambda t: (
            {k: v for k, v in t.items() if k not in (QUERY, NORM)}
            | {FIRST_PROJECTION: torch.ones(1), "what.is.this": torch.ones(2)}
        ),
        [
            rf"missing: {QUERY}",
            rf"missing: {NORM}",
            rf"wrong shape: {FIRST_PROJECTION} \(1,\)",
            r"unknown: what\.is\.this \(2,\)",
        ],
    ),
}


@pytest.mark.parametrize("what", CORRUPTED)
def test_a_corrupted_checkpoint_is_refused_naming_all_that_is_wrong(
    tmp_path: Path, llava: LlavaForConditionalGeneration, what: str
) -> None:
    corrupt, named = CORRUPTED[what]
    tensors = corrupt(original_tensors(llava))
    source = write_checkpoint(tmp_path / "source", tensors, ORIGINAL_CONFIG, as_pickle)

    with pytest.raises(BundleError) as refused:
        MllmSource(source, Vocabulary())

    for pattern in named:
        assert re.search(pattern, str(refused.value)), str(refused.value)
    assert str(source) in str(refused.value)


def test_a_key_missing_in_transformers_layout_is_named_as_there(
    tmp_path: Path, llava: LlavaForConditionalGeneration
) -> None:
    tensors = new_tensors(llava)
    del tensors["model.language_model.layers.0.self_attn.k_proj.weight"]
    source = write_checkpoint(tmp_path, tensors, llava.config.to_dict(), as_safetensors)

    with pytest.raises(
        BundleError, match=r"missing: model\.language_model\.layers\.0\.self_attn\.k_proj\.weight"
    ):
        MllmSource(source, Vocabulary())


@pytest.mark.parametrize("save", [as_safetensors, as_pickle])
def test_a_truncated_shard_is_refused_by_its_name(
    tmp_path: Path, llava: LlavaForConditionalGeneration, save: Callable[[Path, Tensors], None]
) -> None:
    source = write_checkpoint(tmp_path, original_tensors(llava), ORIGINAL_CONFIG, save)
    shard = sorted(source.glob("*model-00002*"))[0]
    shard.write_bytes(shard.read_bytes()[:-2000])

    with pytest.raises(BundleError, match=rf"{shard.name} is truncated"):
        MllmSource(source, Vocabulary())
