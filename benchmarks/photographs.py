"""Photographs of one face, as many as are wanted: one portrait, each time under other noise."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image
from skimage import data

PORTRAIT = (slice(0, 340), slice(60, 400))
"""Head and shoulders of scikit-image's astronaut (NASA, public domain)."""
NOISE = 6
"""Grey levels, so that no two crops are the same and each is as much work as any other."""


def photographs() -> Iterator[bytes]:
    """JPEG files, without end and always the same ones."""
    portrait = data.astronaut()[PORTRAIT].astype(np.int16)
    draw = np.random.default_rng(0)
    while True:
        noisy = portrait + draw.integers(-NOISE, NOISE + 1, portrait.shape)
        file = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=92)
        yield file.getvalue()
