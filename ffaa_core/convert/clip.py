"""The names of CLIP's vision transformer: open_clip's, which are OpenAI's too, to those of Transformers."""

import re

_OUTSIDE_BLOCKS = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_IN_A_BLOCK = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_QUERY_KEY_VALUE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def transformers_names(name: str) -> tuple[str, ...]:
    """What Transformers calls open_clip's tensor `name`: one name, or three of tensors that open_clip stacks.

    Raises:
        KeyError: the vision transformer has no such tensor in both.
    """
    if name in _OUTSIDE_BLOCKS:
        return (_OUTSIDE_BLOCKS[name],)
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)", name)
    if not match:
        raise KeyError(name)
    block, module, kind = match.groups()
    modules = _QUERY_KEY_VALUE if module == "attn.in_proj" else (_IN_A_BLOCK[module],)
    return tuple(f"encoder.layers.{block}.{module}.{kind}" for module in modules)
