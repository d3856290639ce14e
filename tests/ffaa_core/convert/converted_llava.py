"""Converting a LLaVA in a test, and holding the outcome against what was expected."""

from pathlib import Path
from typing import Any

import torch

from ffaa_core.convert.mllm import MllmSource
from ffaa_core.convert.weights import Weights
from tests.ffaa_core.convert.published_llava import (
    Tensors,
    Vocabulary,
)

WITH_NEW_ROWS = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")


def converted(source: Path, to: Path, **given: Any) -> Tensors:
    MllmSource(source, Vocabulary(), **given).write(to, shard_bytes=300_000)
    return dict(Weights.open(to).items())


def assert_same(found: Tensors, expected: Tensors) -> None:
    """Tensor for tensor, bit by bit, but for the rows added for the image's token."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name][: len(tensor)], tensor), name
        assert len(found[name]) == len(tensor) + (name in WITH_NEW_ROWS)
