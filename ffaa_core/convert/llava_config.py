"""The configuration of a LLaVA checkpoint, original or of Transformers, as the bundle's `mllm/` has it."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffaa_core.convert.json_file import read_json
from ffaa_core.convert.weights import Shape
from ffaa_core.errors import BundleError
from ffaa_core.settings import CROP_SIZE

if TYPE_CHECKING:
    from transformers import CLIPVisionConfig, LlavaConfig

_TEXT_MODELS = {"llava_mistral": "mistral", "llava_llama": "llama", "llava": "llama"}
"""`model_type` in the original LLaVA's config.json to the text model it means."""

_NEEDED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "rms_norm_eps",
)
"""What a config.json must say itself: Transformers' defaults change from version to version."""

_NEEDED_OF_MISTRAL = ("rope_theta", "num_key_value_heads", "sliding_window")
"""What differs among Mistrals: some have no sliding window, where Transformers has one by default."""

_OLD_NAMES = {"rope_theta", "rope_scaling"}
"""Settings that Transformers 5 keeps as `rope_parameters`, and still understands."""

_NOT_OF_THE_TEXT = {
    "architectures",
    "model_type",
    "_name_or_path",
    "transformers_version",
    "dtype",
    "use_cache",
}

_ONLY = {
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_feature": "patch",
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "tie_word_embeddings": False,
}
"""Settings of the original LLaVA, and the only values that FFAA has."""

_KNOWN_TOWERS: dict[str, dict[str, Any]] = {
    "clip-vit-large-patch14-336": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "projection_dim": 768,
    }
}
"""What the end of the original LLaVA's `mm_vision_tower` means: its config.json says no sizes of it."""

_HEAD_WIDTH = 64
"""Of every CLIP that OpenAI published."""


def read_config(
    path: Path, tower: Mapping[str, Shape], tower_config: "CLIPVisionConfig | None"
) -> "LlavaConfig":
    """The configuration in the config.json at `path`, its vocabulary as it is there.

    LLaVA-NeXT becomes LLaVA: with one tile an image, as FFAA has it, they are the same. The sizes of an
    original LLaVA's tower are known by its name, or are those of `tower_config`, or are seen in its weights.

    Args:
        tower: the tower's tensors by the names of Transformers' CLIP, and their shapes.
        tower_config: of a tower that does not come with the checkpoint.

    Raises:
        BundleError: there is no such configuration, or it is of a model that FFAA is not.
    """
    raw = read_json(path)
    _check_not_quantised(path, raw)
    try:
        config = (
            _of_transformers(path, raw)
            if "text_config" in raw
            else _of_original(path, raw, tower, tower_config)
        )
    except BundleError:
        raise
    except Exception as error:  # Transformers checks each setting in its own way
        raise BundleError(f"{path} is not the configuration of a LLaVA: {error}") from error
    _check_is_ours(path, config)
    return config


def _check_not_quantised(path: Path, raw: dict[str, Any]) -> None:
    text = raw.get("text_config")
    for settings in (raw, text if isinstance(text, dict) else {}):
        if settings.get("quantization_config"):
            raise BundleError(
                f"{path} says that the weights are quantised ({settings['quantization_config']}): give those "
                "they were made from"
            )


def _of_transformers(path: Path, raw: dict[str, Any]) -> "LlavaConfig":
    from transformers import LlavaConfig, LlavaNextConfig

    _check_among(path, "model_type", raw.get("model_type"), ("llava", "llava_next"))
    given: Any = (LlavaConfig if raw["model_type"] == "llava" else LlavaNextConfig).from_dict(raw)
    return _llava(
        given.text_config,
        given.vision_config,
        projector_hidden_act=given.projector_hidden_act,
        multimodal_projector_bias=given.multimodal_projector_bias,
        vision_feature_layer=given.vision_feature_layer,
        vision_feature_select_strategy=given.vision_feature_select_strategy,
    )


def _of_original(
    path: Path, raw: dict[str, Any], tower: Mapping[str, Shape], tower_config: "CLIPVisionConfig | None"
) -> "LlavaConfig":
    from transformers import LlamaConfig, MistralConfig

    _check_among(path, "model_type", raw.get("model_type"), _TEXT_MODELS)
    for name, only in _ONLY.items():
        _check_among(path, name, raw.get(name, only), (only,))
    is_mistral = _TEXT_MODELS[raw["model_type"]] == "mistral"
    needed = _NEEDED + (_NEEDED_OF_MISTRAL if is_mistral else ())
    if missing := [name for name in needed if name not in raw]:
        raise BundleError(
            f"{path} does not say {', '.join(missing)}: take the one that belongs to these weights"
        )
    kind: Any = MistralConfig if is_mistral else LlamaConfig
    of_the_text = (kind().to_dict().keys() - _NOT_OF_THE_TEXT) | _OLD_NAMES
    tower_name = str(raw.get("mm_vision_tower"))
    return _llava(
        kind(**{name: value for name, value in raw.items() if name in of_the_text}),
        _known_tower(tower_name) or tower_config or _tower_as_seen(path, tower_name, tower),
        vision_feature_layer=raw.get("mm_vision_select_layer", -2),
    )


def _llava(text: Any, vision: Any, **settings: Any) -> "LlavaConfig":
    from transformers import LlavaConfig

    if text.pad_token_id not in range(text.vocab_size):
        text.pad_token_id = None  # of older checkpoints: -1, or a row that was never added
    return LlavaConfig(
        text_config=text,
        vision_config=vision,
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        tie_word_embeddings=text.tie_word_embeddings,
        architectures=["LlavaForConditionalGeneration"],
        **{"projector_hidden_act": "gelu", "vision_feature_select_strategy": "default", **settings},
    )


def _check_is_ours(path: Path, config: "LlavaConfig") -> None:
    text: Any = config.text_config
    vision: Any = config.vision_config
    _check_among(path, "the text model", text.model_type, ("mistral", "llama"))
    _check_among(path, "tie_word_embeddings", text.tie_word_embeddings, (False,))
    _check_among(path, "the vision tower", vision.model_type, ("clip_vision_model",))
    _check_among(path, "the vision tower's image_size", vision.image_size, (CROP_SIZE,))
    _check_among(path, "the vision tower's patch_size", vision.patch_size, (14,))
    _check_among(path, "projector_hidden_act", config.projector_hidden_act, ("gelu",))
    _check_among(path, "vision_feature_layer (mm_vision_select_layer)", config.vision_feature_layer, (-2,))
    _check_among(path, "the vision features", config.vision_feature_select_strategy, ("default",))


def _check_among(path: Path, what: str, value: Any, known: Collection[Any]) -> None:
    if value not in known:
        raise BundleError(f"in {path} {what} is {value!r}, and FFAA has {' or '.join(map(repr, known))}")


def _known_tower(name: str) -> "CLIPVisionConfig | None":
    from transformers import CLIPVisionConfig

    sizes = _KNOWN_TOWERS.get(Path(name).name)
    return CLIPVisionConfig(**sizes) if sizes else None


def _tower_as_seen(path: Path, name: str, tower: Mapping[str, Shape]) -> "CLIPVisionConfig":
    from transformers import CLIPVisionConfig

    patches, positions = "embeddings.patch_embedding.weight", "embeddings.position_embedding.weight"
    mlp = "encoder.layers.0.mlp.fc1.weight"
    if missing := [tensor for tensor in (patches, positions, mlp) if tensor not in tower]:
        raise BundleError(
            f"{path} names the vision tower {name}, which is none that is known, and its sizes cannot be "
            f"seen either: it lacks {', '.join(missing)}"
        )
    width, _, patch, _ = tower[patches]
    layers = {int(tensor.split(".")[2]) for tensor in tower if tensor.startswith("encoder.layers.")}
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=tower[mlp][0],
        num_hidden_layers=max(layers) + 1,
        num_attention_heads=width // _HEAD_WIDTH,
        image_size=math.isqrt(tower[positions][0] - 1) * patch,
        patch_size=patch,
        projection_dim=width,
    )
