"""The demo model: the published layout in small, the same bytes each time."""

import hashlib
import json
from pathlib import Path

from safetensors.numpy import load_file

from ffaa_core.bundle.demo_mllm import write_demo_mllm
from tests.fixtures.engine import DemoModel


def digests(*folders: Path) -> list[str]:
    files = (file for folder in folders for file in sorted(folder.iterdir()))
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    demo_mllm: DemoModel, tmp_path: Path
) -> None:
    write_demo_mllm(tmp_path / "mllm", tmp_path / "adapter")
    first = digests(demo_mllm.mllm, demo_mllm.adapter)
    assert digests(tmp_path / "mllm", tmp_path / "adapter") == first
    write_demo_mllm(tmp_path / "mllm", tmp_path / "adapter", seed=1)
    assert digests(tmp_path / "mllm", tmp_path / "adapter") != first


def test_weights_have_the_published_names_and_are_small(demo_mllm: DemoModel) -> None:
    weights = load_file(demo_mllm.mllm / "model.safetensors")
    assert sum(tensor.size for tensor in weights.values()) < 1_500_000
    for name in (
        "language_model.lm_head.weight",
        "language_model.model.embed_tokens.weight",
        "language_model.model.layers.0.self_attn.q_proj.weight",
        "multi_modal_projector.linear_2.bias",
        "vision_tower.vision_model.embeddings.patch_embedding.weight",
        "vision_tower.vision_model.pre_layrnorm.weight",
    ):
        assert name in weights


def test_transformers_loads_every_tensor(demo_mllm: DemoModel) -> None:
    from transformers import LlavaForConditionalGeneration

    _, report = LlavaForConditionalGeneration.from_pretrained(demo_mllm.mllm, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]


def test_the_model_is_configured_as_the_published_one(demo_mllm: DemoModel) -> None:
    config = json.loads((demo_mllm.mllm / "config.json").read_text())
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert config["text_config"]["model_type"] == "mistral"
    assert (config["vision_config"]["image_size"], config["vision_config"]["patch_size"]) == (336, 14)
    assert (config["vision_feature_layer"], config["vision_feature_select_strategy"]) == (-2, "default")
    adapter = json.loads((demo_mllm.adapter / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (32, 48)


def test_the_tokenizer_reads_back_what_it_splits(demo_mllm: DemoModel) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo_mllm.mllm)
    text = "Image description: A woman, 30.\nForgery reasoning: naïve ☂"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.convert_ids_to_tokens(ids)[1:3] == ["▁Image", "▁description:"]
    assert "▁<image>" not in tokenizer.get_vocab()
    assert tokenizer("a <image>\nb")["input_ids"].count(tokenizer.convert_tokens_to_ids("<image>")) == 1
