import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffaa_core.crops import crop_face, whole_image
from ffaa_core.verdict import Box


def noise(height, width):
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        (Box(left=60, top=70, right=110, bottom=120), slice(30, 160), slice(20, 150)),
        (Box(left=15, top=70, right=65, bottom=120), slice(55, 135), slice(0, 80)),
        (Box(left=60, top=70, right=110, bottom=197), slice(67, 200), slice(57, 113)),
        (Box(left=60, top=0, right=110, bottom=50), slice(0, 50), slice(60, 110)),
        (Box(left=60, top=-9, right=110, bottom=41), slice(0, 32), slice(69, 101)),
        (Box(left=170, top=70, right=220, bottom=120), slice(90, 100), slice(190, 200)),
    ],
    ids=["full margin", "left is near", "bottom is near", "at the top", "beyond the top", "beyond the right"],
)
def test_the_margin_is_the_same_on_every_side_and_ends_at_the_border(box, rows, columns):
    pixels = noise(200, 200)
    expected = cv2.resize(np.ascontiguousarray(pixels[rows, columns]), (336, 336))
    np.testing.assert_array_equal(crop_face(pixels, box, margin=40), expected)


@pytest.mark.parametrize("left", [-25, -26, -400, 175, 176, 900])
def test_a_box_half_outside_or_more_leaves_no_crop(left):
    assert crop_face(noise(200, 200), Box(left=left, top=70, right=left + 50, bottom=120), margin=40) is None


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(-60, 120), st.integers(-60, 120), st.integers(0, 150), st.integers(0, 150)),
    st.integers(0, 60),
)
def test_any_box_on_any_image_gives_a_full_crop_or_none(size, box, margin):
    left, top, width, height = box
    crop = crop_face(noise(*size), Box(left=left, top=top, right=left + width, bottom=top + height), margin)
    assert crop is None or (crop.shape == (336, 336, 3) and crop.dtype == np.uint8)


@pytest.mark.parametrize("size", [(500, 300), (300, 501), (336, 336), (90, 100), (1, 40), (1200, 1601)])
def test_a_whole_image_is_what_llava_and_clip_make_of_it(size):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    clip = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    (height, width), side = size, max(size)
    square = np.full((side, side, 3), [int(255 * mean) for mean in clip.image_mean], dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = noise(height, width)
    expected = clip(square, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(whole_image(noise(height, width)), expected.transpose(1, 2, 0))


@pytest.mark.parametrize("size", [(1, 1_000_000), (1_000_000, 1)])
def test_a_long_strip_is_padded_without_exhausting_memory(size):
    crop = whole_image(np.zeros((*size, 3), np.uint8))
    assert crop.shape == (336, 336, 3)
    assert tuple(crop[0, 0]) == (122, 116, 104)
