"""A checkpoint of the true 7B widths, in shards of a GB, is converted without being held in memory."""

import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

import pytest
import torch
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, MistralConfig

from ffaa_core.bundle.bundle import describe_part
from tests.ffaa_core.convert.published_llava import (
    ORIGINAL_CONFIG,
    Tensors,
    as_pickle,
    as_safetensors,
    original_tensors,
    write_checkpoint,
)

pytestmark = pytest.mark.slow

MISTRAL_7B = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 2,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
}
"""But for its depth, which is 32 layers."""

CLIP_LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
SOURCE_SHARD_BYTES = 1_300_000_000

CONVERT = r"""
import re, sys
from pathlib import Path
from types import SimpleNamespace
from transformers import GenerationConfig, LlavaForConditionalGeneration
from ffaa_core.convert.mllm import MllmSource

def peak():  # not getrusage's, which begins with that of the process that started this one
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

before = peak()
source = MllmSource(Path(sys.argv[1]), SimpleNamespace(image_token_id=32000, vocab_size=32001))
copied = (lambda name, tensor: tensor.clone()) if sys.argv[3] == "copied" else None
source.write(Path(sys.argv[2]), transform=copied)
print(before, peak())
"""


def test_peak_memory_stays_under_two_shards_and_the_digest_is_stable(tmp_path: Path) -> None:
    """Every tensor is changed in one of the conversions, as where an adapter is merged."""
    digests = set()
    for save, how in ((as_safetensors, "as it is"), (as_pickle, "as it is"), (as_pickle, "copied")):
        source = write_large(tmp_path / "source", save)
        shards = [file.stat().st_size for file in source.glob("*model-0*")]
        assert len(shards) >= 2

        baseline, peak = convert(source, tmp_path / "mllm", how)

        print(
            f"{save.__name__}, {how}: shards of {[s // 10**6 for s in shards]} MB, resident at first "
            f"{baseline // 10**6} MB, at most {peak // 10**6} MB"
        )
        assert peak - baseline < 2 * max(shards)
        digests.add(describe_part(tmp_path / "mllm").sha256)
        rmtree(source)
        rmtree(tmp_path / "mllm")
    assert len(digests) == 1


def write_large(folder: Path, save: Callable[[Path, Tensors], None]) -> Path:
    """The same values whatever the format, never more than a shard of them in memory."""
    config = LlavaConfig(
        text_config=MistralConfig(**MISTRAL_7B), vision_config=CLIPVisionConfig(**CLIP_LARGE)
    )
    with torch.device("meta"):
        without_values = original_tensors(LlavaForConditionalGeneration(config).half())
    settings = ORIGINAL_CONFIG | MISTRAL_7B | {"mm_vision_tower": "openai/clip-vit-large-patch14-336"}
    return write_checkpoint(folder, without_values, settings, save, SOURCE_SHARD_BYTES, fill=random)


def random(name: str, tensor: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.rand(tensor.shape, generator=generator, dtype=torch.float16)


def convert(source: Path, to: Path, how: str) -> tuple[int, int]:
    """In a process of its own: what it has resident before, and at most."""
    run = subprocess.run(
        [sys.executable, "-c", CONVERT, source, to, how], check=True, capture_output=True, text=True
    )
    before, peak = run.stdout.split()[-2:]
    return int(before), int(peak)
