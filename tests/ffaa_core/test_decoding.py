import io
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ffaa_core.decoding import decode
from ffaa_core.errors import DecodeError, ImageError, TooLargeError
from ffaa_core.settings import DecodeSettings

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:PIL.TiffImagePlugin", "ignore::PIL.Image.DecompressionBombWarning"
)

DEFAULT = DecodeSettings()
EVERY_FORMAT = DecodeSettings(formats=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"))
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {"compression": "tiff_lzw"}}


def picture(width=7, height=5, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def saved(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, format=file_format, **options)
    return file.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, bits, colour, rows, *before_data):
    """A PNG made by hand; `rows` are its raw bytes, each row with its filter byte."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *before_data, data, chunk(b"IEND", b"")])


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_pixels_come_out_as_they_went_in(file_format):
    image = decode(saved(picture(), file_format, **LOSSLESS[file_format]), EVERY_FORMAT)
    assert (image.width, image.height, image.format) == (7, 5, file_format)
    assert image.pixels.dtype == np.uint8
    np.testing.assert_array_equal(image.pixels, np.asarray(picture()))


def test_a_jpeg_has_the_pixels_that_pillow_gives_it():
    data = saved(picture(40, 30), "JPEG", quality=80)
    image = decode(data, DEFAULT)
    assert image.format == "JPEG"
    np.testing.assert_array_equal(image.pixels, np.asarray(Image.open(io.BytesIO(data))))


def _palette(colour, alpha=None):
    image = Image.new("P", (2, 2), 0)
    image.putpalette([*colour, 0, 0, 0])
    return saved(image, "PNG", **({} if alpha is None else {"transparency": bytes([alpha, 255])}))


SIXTEEN_BIT_TIFF = saved(Image.fromarray(np.full((2, 2), 0x1234, np.uint16)), "TIFF")


@pytest.mark.parametrize(
    ("kind", "data", "colour"),
    [
        ("1-bit, white", saved(Image.new("1", (2, 2), 1), "PNG"), (255, 255, 255)),
        ("grey", saved(Image.new("L", (2, 2), 77), "PNG"), (77, 77, 77)),
        ("grey, half transparent", saved(Image.new("LA", (2, 2), (0, 128)), "PNG"), (127, 127, 127)),
        ("RGB, transparent", saved(Image.new("RGBA", (2, 2), (9, 9, 9, 0)), "PNG"), (255, 255, 255)),
        ("RGB, opaque", saved(Image.new("RGBA", (2, 2), (10, 20, 30, 255)), "PNG"), (10, 20, 30)),
        ("RGB, half transparent", saved(Image.new("RGBA", (2, 2), (255, 0, 0, 51)), "PNG"), (255, 204, 204)),
        ("palette", _palette((10, 20, 30)), (10, 20, 30)),
        ("palette, transparent", _palette((10, 20, 30), alpha=0), (255, 255, 255)),
        ("GIF, transparent", saved(Image.new("P", (2, 2), 1), "GIF", transparency=1), (255, 255, 255)),
        ("one colour transparent", png(1, 1, 8, 2, b"\0\1\2\3", chunk(b"tRNS", b"\0\1\0\2\0\3")), (255,) * 3),
        ("grey, 16 bits", png(1, 1, 16, 0, b"\0\x12\x34"), (0x12,) * 3),
        ("grey, 16 bits, white", png(1, 1, 16, 0, b"\0\xff\xff"), (255,) * 3),
        ("grey, 16 bits, TIFF", SIXTEEN_BIT_TIFF, (0x12,) * 3),
        ("RGB, 16 bits", png(1, 1, 16, 2, b"\0\x12\x34\xff\xff\x80\x00"), (0x12, 0xFF, 0x80)),
        ("grey and alpha, 16 bits", png(1, 1, 16, 4, b"\0\x12\x34\xff\xff"), (0x12,) * 3),
        ("CMYK, TIFF", saved(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
        ("RGB, WEBP, transparent", saved(Image.new("RGBA", (2, 2)), "WEBP", lossless=True), (255, 255, 255)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_pixel_becomes_rgb(kind, data, colour):
    np.testing.assert_array_equal(decode(data, EVERY_FORMAT).pixels[0, 0], colour)


def test_a_cmyk_jpeg_becomes_rgb():
    data = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    np.testing.assert_allclose(decode(data, DEFAULT).pixels[8, 8], (255, 0, 0), atol=4)


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_pixels_without_an_agreed_white_are_refused(mode):
    with pytest.raises(DecodeError, match="save it as grey, RGB or CMYK with 8 or 16 bits"):
        decode(saved(Image.new(mode, (2, 2)), "TIFF"), EVERY_FORMAT)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied_unless_told_not_to(file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(picture(24, 16), file_format, exif=exif)
    stored = Image.open(io.BytesIO(data))
    upright = ImageOps.exif_transpose(stored)
    np.testing.assert_array_equal(decode(data, DEFAULT).pixels, np.asarray(upright))
    as_stored = decode(data, DEFAULT, exif_orientation=False)
    np.testing.assert_array_equal(as_stored.pixels, np.asarray(stored))


@pytest.mark.parametrize("exif_orientation", [True, False])
def test_a_tiff_is_turned_once_and_always(exif_orientation):
    data = saved(picture(3, 2), "TIFF", tiffinfo={0x0112: 6})
    pixels = decode(data, EVERY_FORMAT, exif_orientation=exif_orientation).pixels
    np.testing.assert_array_equal(pixels, np.rot90(np.asarray(picture(3, 2)), k=-1))


@pytest.mark.parametrize(
    "exif", [b"Exif\x00\x00", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", b"Exif\x00\x00junk"]
)
def test_unreadable_exif_data_do_not_damage_the_picture(exif):
    data = saved(picture(16, 16), "JPEG", exif=exif)
    assert decode(data, DEFAULT).pixels.shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("GIF", {}), ("PNG", {"save_all": True}), ("WEBP", {"lossless": True}), ("TIFF", {})],
)
def test_of_many_frames_the_first_is_read(file_format, options):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    data = saved(first, file_format, **{"save_all": True, "append_images": [second], **options})
    np.testing.assert_array_equal(decode(data, EVERY_FORMAT).pixels, np.asarray(first))


def test_a_phones_jpeg_of_several_pictures_is_a_jpeg():
    data = saved(picture(16, 16), "MPO", save_all=True, append_images=[picture(16, 16, seed=1)])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    image = decode(data, DEFAULT)
    assert image.format == "JPEG"
    np.testing.assert_array_equal(image.pixels, np.asarray(Image.open(io.BytesIO(data))))


def test_the_byte_limit_includes_its_own_value():
    data = saved(picture(), "PNG")
    decode(data, DecodeSettings(max_bytes=len(data)))
    with pytest.raises(TooLargeError, match=rf"^{len(data)} bytes; the limit is {len(data) - 1}$"):
        decode(data, DecodeSettings(max_bytes=len(data) - 1))


def test_the_pixel_limit_includes_its_own_value():
    data = saved(picture(7, 5), "PNG")
    decode(data, DecodeSettings(max_pixels=35))
    with pytest.raises(TooLargeError, match=r"^7.5 pixels, 35 in all; the limit is 34$"):
        decode(data, DecodeSettings(max_pixels=34))


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (2**31 - 1, 2**31 - 1), (1, 64_000_001)])
def test_the_pixel_limit_is_checked_before_any_pixel_is_decoded(width, height):
    with pytest.raises(TooLargeError, match=f"{width}.{height} pixels"):
        decode(png(width, height, 8, 2, b"never a picture"), DEFAULT)


def test_a_gif_whose_frame_exceeds_its_screen_is_measured_by_the_frame():
    data = bytearray(saved(Image.new("P", (4, 4)), "GIF"))
    frame = data.index(b"\x2c", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    struct.pack_into("<HHHH", data, frame + 1, 0, 0, 60_000, 60_000)
    with pytest.raises(TooLargeError):
        decode(bytes(data), DEFAULT)


def test_pillows_own_limit_neither_counts_nor_changes(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode(saved(picture(30, 20), "PNG"), DEFAULT).width == 30
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_text_block_that_unpacks_to_too_much_is_refused():
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 100_000_000))
    with pytest.raises(DecodeError, match="a text block in it unpacks to more than is allowed"):
        decode(png(1, 1, 8, 0, b"\0\0", bomb), DEFAULT)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"<html>404</html>", "it looks like an HTML page; formats read are GIF, JPEG, PNG, WEBP"),
        (saved(picture(), "BMP"), "BMP images are read only when asked for: add BMP to decode.formats"),
        (saved(picture(), "TIFF"), "TIFF images are read only when asked for: add TIFF to decode.formats"),
        (saved(picture(99, 99), "JPEG")[:-300], "the JPEG is cut off or damaged: it ends before"),
        (saved(picture(99, 99), "PNG")[:-300], "the PNG is cut off or damaged: it ends before"),
        (saved(picture(99, 99), "WEBP")[:-300], "the WEBP is cut off or damaged"),
        (png(0, 5, 8, 0, b""), "the PNG is cut off or damaged: its header makes no sense"),
    ],
    ids=["empty", "HTML", "BMP", "TIFF", "cut JPEG", "cut PNG", "cut WEBP", "no width"],
)
def test_what_is_not_read_says_why(data, reason):
    with pytest.raises(DecodeError) as refused:
        decode(data, DEFAULT)
    assert reason in str(refused.value)


def test_a_format_that_is_not_asked_for_is_not_read():
    with pytest.raises(DecodeError, match=r"add JPEG to decode\.formats; formats read are PNG"):
        decode(saved(picture(), "JPEG"), DecodeSettings(formats=("PNG",)))


_WHOLE = [
    saved(picture(48, 32), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00"),
    saved(picture(48, 32), "JPEG", progressive=True),
    saved(picture(20, 20), "PNG", exif=b"MM\x00*\x00\x00\x00\x08\x00\x00"),
    saved(picture(20, 20).quantize(8), "PNG", transparency=2),
    png(4, 4, 16, 0, bytes(4 * 9), chunk(b"tRNS", b"\0\0")),
    saved(picture(20, 20), "GIF", save_all=True, append_images=[picture(20, 20, 1)], transparency=1),
    saved(picture(20, 20), "WEBP"),
    saved(picture(20, 20).convert("RGBA"), "WEBP", save_all=True, append_images=[picture(20, 20, 1)]),
    saved(picture(20, 20), "BMP"),
    saved(picture(20, 20), "TIFF"),
    saved(picture(20, 20), "TIFF", compression="tiff_deflate"),
]


@st.composite
def damaged_files(draw):
    """A real file with bits flipped, bytes replaced, pieces cut out or doubled, or its end missing."""
    data = bytearray(draw(st.sampled_from(_WHOLE)))
    chance = random.Random(draw(st.integers(0, 2**32)))  # one draw in place of hundreds
    for _ in range(chance.randrange(12)):
        at = chance.randrange(len(data)) if chance.random() < 0.5 else chance.randrange(min(64, len(data)))
        match chance.randrange(5):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 2 if len(data) > 64:
                del data[at : at + chance.randrange(1, 16)]
            case 3:
                data[at:at] = data[at : at + chance.randrange(1, 16)]
            case _:
                data[at : at + 4] = chance.randbytes(4)
    return bytes(data[: chance.randrange(len(data))] if chance.random() < 0.3 else data)


@settings(max_examples=3000, deadline=None)
@given(st.one_of(damaged_files(), st.binary(max_size=200)), st.booleans())
@example(b"\xff\xd8\xff", True)
@example(b"RIFF\0\0\0\0WEBP", True)
@example(b"II*\0\xff\xff\xff\xff", True)
def test_no_bytes_whatever_raise_anything_but_an_image_error(data, exif_orientation):
    limits = DecodeSettings(formats=EVERY_FORMAT.formats, max_pixels=1_000_000)
    try:
        image = decode(data, limits, exif_orientation=exif_orientation)
    except ImageError:
        return
    assert image.pixels.shape == (image.height, image.width, 3)
    assert image.pixels.dtype == np.uint8


@pytest.fixture(scope="module")
def uploads(shared_faces):
    return {path: path.read_bytes() for path in (shared_faces / "uploads").iterdir() if path.suffix != ".csv"}


def test_an_upload_that_is_not_read_has_a_reason_that_a_person_understands(uploads):
    refused = {}
    for path, data in uploads.items():
        try:
            decode(data, DEFAULT)
        except ImageError as error:
            refused[path.name] = str(error)
    assert len(refused) >= 40
    for name, reason in refused.items():
        assert 20 < len(reason) < 200, (name, reason)
        assert not any(sign in reason for sign in ("Error", "Pillow", "0x", "<", "'", "\n")), (name, reason)
    assert {reason for name, reason in refused.items() if "zero_bytes" in name} == {
        "the file is empty (0 bytes)"
    }


def test_every_upload_that_pillow_reads_within_the_limits_is_read_as_pillow_reads_it(uploads):
    compared = 0
    for path, data in uploads.items():
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.format not in (*DEFAULT.formats, "MPO") or image.width * image.height > 5_000_000:
                    continue
                upright = ImageOps.exif_transpose(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
        ours = decode(data, DEFAULT).pixels
        assert ours.shape[:2] == (upright.height, upright.width), path.name
        if not upright.has_transparency_data:
            np.testing.assert_array_equal(ours, np.asarray(upright.convert("RGB")), err_msg=path.name)
            compared += 1
    assert compared >= 140
