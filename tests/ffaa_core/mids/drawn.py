"""Faces for MIDS that need no photograph: drawn crops, and answers of very unequal lengths."""

from collections.abc import Iterator

import numpy as np

from ffaa_core.mids.judge import Crop

WORDS = [
    "the",
    "skin",
    "of",
    "a",
    "face",
    "is",
    "smooth",
    "hair",
    "melts",
    "into",
    "blurred",
    "light",
    "behind",
]


def faces(n: int, seed: int = 0) -> tuple[list[Crop], list[list[str]]]:
    """`n` crops of coloured blobs and for each three masked answers of 3 to 120 words."""
    rng = np.random.default_rng(seed)
    return [_crop(rng) for _ in range(n)], [list(_answers(rng)) for _ in range(n)]


def _crop(rng: np.random.Generator) -> Crop:
    coarse = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    noise = rng.integers(-20, 20, (336, 336, 3))
    return np.clip(coarse.repeat(48, 0).repeat(48, 1) + noise, 0, 255).astype(np.uint8)


def _answers(rng: np.random.Generator) -> Iterator[str]:
    for longest in (12, 120, 40):
        words = rng.choice(WORDS, rng.integers(3, longest))
        yield f"Image description: {' '.join(words)}.\nForgery reasoning: {words[0]}."
