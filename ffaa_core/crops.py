"""Crops: the square pictures of faces that the models see, and how they are kept.

Source: the cropping of the published code; for whole images LLaVA's `image_aspect_ratio pad` followed by
CLIP's image processor.
"""

import cv2
import numpy as np
from PIL import Image

from ffaa_core.decoding import Pixels
from ffaa_core.settings import CROP_SIZE
from ffaa_core.verdict import Box

CLIP_MEAN = (122, 116, 104)
"""CLIP's mean colour, rounded down as LLaVA does, with which it pads."""

_LONGEST_PADDED = 8192


def crop_face(pixels: Pixels, box: Box, margin: int) -> Pixels | None:
    """The crop of one face by the published rule, uint8 (CROP_SIZE, CROP_SIZE, 3).

    `margin` pixels are added on every side, but no more than the least distance from the box to the border.
    For a box that leaves the image that distance is negative, and as much is taken off every side. OpenCV's
    bilinear resizing does not antialias; the published weights have seen such crops.

    Returns:
        None if nothing is left, which is so when half of the box or more lies outside the image.
    """
    height, width = pixels.shape[:2]
    margin = min(margin, box.left, box.top, width - box.right, height - box.bottom)
    left, top, right, bottom = box.left - margin, box.top - margin, box.right + margin, box.bottom + margin
    if right <= left or bottom <= top:
        return None
    resized = cv2.resize(
        pixels[top:bottom, left:right], (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR
    )
    return np.asarray(resized, dtype=np.uint8)


def whole_image(pixels: Pixels) -> Pixels:
    """All of an image as one crop, uint8 (CROP_SIZE, CROP_SIZE, 3): padded to a square, then resized.

    The resizing is bicubic with antialiasing. A side over 8192 pixels is first reduced to that, so that
    padding a long strip cannot exhaust memory.
    """
    image = Image.fromarray(pixels)
    if max(image.size) > _LONGEST_PADDED:
        scale = _LONGEST_PADDED / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    side = max(image.size)
    square = Image.new("RGB", (side, side), CLIP_MEAN)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.array(square.resize((CROP_SIZE, CROP_SIZE), Image.Resampling.BICUBIC))
