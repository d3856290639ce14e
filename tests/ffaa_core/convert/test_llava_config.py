"""Settings of published LLaVA checkpoints: which are refused, and what becomes of padding."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration

from ffaa_core.convert.mllm import MllmSource
from ffaa_core.errors import BundleError
from tests.ffaa_core.convert.converted_llava import assert_same, converted
from tests.ffaa_core.convert.published_llava import (
    ORIGINAL_CONFIG,
    VOCABULARY,
    Vocabulary,
    as_safetensors,
    bundle_tensors,
    original_tensors,
    write_checkpoint,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llava_mpt"}, "model_type is 'llava_mpt', and FFAA has"),
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear', and FFAA has 'mlp2x_gelu'"),
        ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature is 'cls_patch'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end is True"),
        ({"num_hidden_layers": "many"}, "is not the configuration of a LLaVA"),
        ({"num_attention_heads": 0}, "is not the configuration of a LLaVA"),
        ({"hidden_act": "silent"}, "has a config.json of which no model can be built"),
        ({"mm_vision_select_layer": -1}, r"\(mm_vision_select_layer\) is -1, and FFAA has -2"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised .*bitsandbytes"),
        ({"eos_token_id": "</s>"}, "is not the configuration of a LLaVA"),
    ],
)
def test_a_configuration_that_the_bundle_cannot_express_is_refused(
    tmp_path: Path, llava: LlavaForConditionalGeneration, change: dict[str, Any], message: str
) -> None:
    source = write_checkpoint(tmp_path, original_tensors(llava), ORIGINAL_CONFIG | change, as_safetensors)

    with pytest.raises(BundleError, match=message):
        MllmSource(source, Vocabulary())


@pytest.mark.parametrize("pad", [-1, VOCABULARY, VOCABULARY + 1, 999])
def test_padding_that_the_checkpoint_has_no_row_for_is_none(
    tmp_path: Path, llava: LlavaForConditionalGeneration, pad: int
) -> None:
    config = ORIGINAL_CONFIG | {"pad_token_id": pad}
    source = write_checkpoint(tmp_path / "source", original_tensors(llava), config, as_safetensors)

    assert_same(converted(source, tmp_path / "mllm"), bundle_tensors(llava))

    assert GenerationConfig.from_pretrained(tmp_path / "mllm").pad_token_id is None
    assert LlavaConfig.from_pretrained(tmp_path / "mllm").text_config.pad_token_id is None


def test_padding_with_a_row_is_kept(tmp_path: Path, llava: LlavaForConditionalGeneration) -> None:
    config = ORIGINAL_CONFIG | {"pad_token_id": 0}
    source = write_checkpoint(tmp_path / "source", original_tensors(llava), config, as_safetensors)

    converted(source, tmp_path / "mllm")

    assert GenerationConfig.from_pretrained(tmp_path / "mllm").pad_token_id == 0


@pytest.mark.parametrize("where", ["", "text_config"])
def test_a_quantised_checkpoint_of_transformers_is_refused(
    tmp_path: Path, llava: LlavaForConditionalGeneration, where: str
) -> None:
    config = llava.config.to_dict()
    (config[where] if where else config)["quantization_config"] = {"quant_method": "awq"}
    source = write_checkpoint(tmp_path, bundle_tensors(llava), config, as_safetensors)

    with pytest.raises(BundleError, match=r"quantised .*awq"):
        MllmSource(source, Vocabulary())


def test_what_mistrals_differ_in_must_be_said_and_llamas_need_not_say_it(
    tmp_path: Path, llava: LlavaForConditionalGeneration
) -> None:
    unsaid = ("rope_theta", "sliding_window")
    config = {name: value for name, value in ORIGINAL_CONFIG.items() if name not in unsaid}
    source = write_checkpoint(tmp_path, original_tensors(llava), config, as_safetensors)

    with pytest.raises(BundleError, match="does not say rope_theta, sliding_window"):
        MllmSource(source, Vocabulary())

    (source / "config.json").write_text(json.dumps(config | {"model_type": "llava_llama"}))
    MllmSource(source, Vocabulary())


def test_a_configuration_without_sizes_or_none_at_all_is_refused(
    tmp_path: Path, llava: LlavaForConditionalGeneration
) -> None:
    config = {
        name: value for name, value in ORIGINAL_CONFIG.items() if name not in ("hidden_size", "rms_norm_eps")
    }
    source = write_checkpoint(tmp_path, original_tensors(llava), config, as_safetensors)

    with pytest.raises(BundleError, match="does not say hidden_size, rms_norm_eps"):
        MllmSource(source, Vocabulary())

    (source / "config.json").unlink()
    with pytest.raises(BundleError, match=r"config\.json cannot be read"):
        MllmSource(source, Vocabulary())
