"""How large a published CLIP is: open_clip's `model_cfg` of its vision transformer, from what lies beside."""

import re
from collections.abc import Mapping
from pathlib import Path
from statistics import mode
from typing import Any

from transformers import CLIPConfig, CLIPVisionConfig

from ffaa_core.convert.json_file import read_json
from ffaa_core.convert.weights import Shape
from ffaa_core.errors import BundleError
from ffaa_core.mids.loading import VISION_CONFIG

WANTED = "Give CLIP ViT-L/14-336, such as openai/clip-vit-large-patch14-336"


def open_clip_config(folder: Path) -> dict[str, Any] | None:
    """Of an open_clip folder; None where it has no configuration.

    Raises:
        BundleError: there is something else in it.
    """
    if not (folder / VISION_CONFIG).is_file():
        return None
    config = read_json(folder / VISION_CONFIG).get("model_cfg")
    if not isinstance(config, dict) or not isinstance(config.get("vision_cfg"), dict):
        raise BundleError(
            f"{folder / VISION_CONFIG} does not describe CLIP: it has no vision_cfg in a model_cfg. {WANTED}"
        )
    return _model_config(
        config.get("embed_dim"), config["vision_cfg"], quick_gelu=config.get("quick_gelu", False)
    )


def openai_config(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Of OpenAI's file, which has no configuration: the sizes that its tensors have, with heads of 64."""
    blocks = [
        int(match[1])
        for name in shapes
        if (match := re.match(r"visual\.transformer\.resblocks\.(\d+)\.", name))
    ]
    width = _most(shapes, r"visual\..*ln_[^.]+\.weight", default=(1024,))[0]
    patch = _most(shapes, r"visual\.conv1\.weight", default=(width, 3, 14, 14))[-1]
    positions = _most(shapes, r"visual\.positional_embedding", default=(577, width))[0]
    vision = {
        "image_size": patch * round((positions - 1) ** 0.5),
        "patch_size": patch,
        "layers": max(blocks, default=23) + 1,
        "width": width,
        "head_width": 64,
        "mlp_ratio": _most(shapes, r"visual\..*\.c_fc\.bias", default=(4 * width,))[0] / width,
    }
    return _model_config(_most(shapes, r"visual\.proj", default=(width, 768))[-1], vision, quick_gelu=True)


def transformers_config(folder: Path) -> tuple[dict[str, Any], bool]:
    """Of a Transformers folder, and whether its weights must hold CLIP's projection.

    Raises:
        BundleError: it is not CLIP's, or asks for something that open_clip's CLIP has not.
    """
    file = folder / "config.json"
    stated = read_json(file)
    kind = stated.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise BundleError(f"{file} is of model_type {kind}, and not clip or clip_vision_model. {WANTED}")
    try:
        whole: Any = (CLIPConfig if kind == "clip" else CLIPVisionConfig).from_dict(stated)
    except Exception as error:  # Transformers checks each setting in its own way
        raise BundleError(f"{file} does not describe CLIP ({error}). {WANTED}") from error
    clip = whole.vision_config if kind == "clip" else whole
    if clip.hidden_size < 1:
        raise BundleError(f"{file} has hidden_size {clip.hidden_size}. {WANTED}")
    if clip.hidden_act not in ("quick_gelu", "gelu") or clip.layer_norm_eps != 1e-5:
        raise BundleError(
            f"{file} has hidden_act {clip.hidden_act} and layer_norm_eps {clip.layer_norm_eps}; CLIP has "
            f"quick_gelu (or gelu) and 1e-05. {WANTED}"
        )
    vision = {
        "image_size": clip.image_size,
        "patch_size": clip.patch_size,
        "layers": clip.num_hidden_layers,
        "width": clip.hidden_size,
        "head_width": clip.hidden_size // clip.num_attention_heads,
        "mlp_ratio": clip.intermediate_size / clip.hidden_size,
    }
    return _model_config(
        whole.projection_dim, vision, quick_gelu=clip.hidden_act == "quick_gelu"
    ), kind == "clip"


def _model_config(embed_dim: Any, vision: dict[str, Any], *, quick_gelu: bool) -> dict[str, Any]:
    """With a text tower of whatever size: open_clip wants one to be named, and no weights of it are kept."""
    return {"embed_dim": embed_dim, "quick_gelu": quick_gelu, "vision_cfg": vision, "text_cfg": {}}


def _most(shapes: Mapping[str, Shape], pattern: str, default: Shape) -> Shape:
    """The shape that most tensors of this name have, so that a wrong one is told from the others."""
    found = [s for name, s in shapes.items() if re.fullmatch(pattern, name) and len(s) == len(default)]
    return mode(found) if found else default
