import io

import pytest
from PIL import Image

from ffaa_core.file_types import image_format, looks_like


def saved(file_format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, format=file_format)
    return file.getvalue()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_format_that_can_be_read_is_told_by_its_content(name):
    assert image_format(saved(name)) == name


@pytest.mark.parametrize(
    ("data", "description"),
    [
        (saved("JPEG2000"), "a JPEG 2000 picture"),
        (saved("AVIF"), "an AVIF picture"),
        (saved("ICO"), "an icon (ICO)"),
        (saved("PDF"), "a PDF document"),
        (b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00mif1heic", "a HEIF picture (HEIC, as phones make them)"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00isom", "a video (MP4 or QuickTime)"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "a video (AVI)"),
        (b"\n <!DOCTYPE HTML><title>404</title>", "an HTML page"),
        (b'<?xml version="1.0"?>\n<!-- by hand -->\n<svg width="9"/>', "an SVG drawing"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", "XML"),
        (b'{"error": "no such key"}', "JSON"),
        (b"BMW 320i, one owner, as new", "plain text"),
        ("grüße ".encode() * 300, "plain text"),
        (("x" + "é" * 600).encode(), "plain text"),
        (b"\xdb\xa4[Oq\xcf\x18\xab\x84\xf9", "no kind of file known here"),
        (b"\x00" * 64, "no kind of file known here"),
    ],
)
def test_what_cannot_be_read_is_named(data, description):
    assert image_format(data) is None
    assert looks_like(data) == description
