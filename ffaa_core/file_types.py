"""What some bytes are, told by their content and never by their name."""

import re
from typing import get_args

from ffaa_core.settings import ImageFormat

_READABLE: dict[ImageFormat, bytes] = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "TIFF": rb"II[*+]\x00|MM\x00[*+]",
    "BMP": rb"BM.{10}\x00\x00",  # its pixels begin below 64 KiB; text may begin with BM too
}
_RECOGNISED = {
    "a JPEG 2000 picture": rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51",
    "a JPEG XL picture": rb"\xff\x0a|\x00\x00\x00\x0cJXL ",
    "an AVIF picture": rb"....ftypavi[fs]",
    "a HEIF picture (HEIC, as phones make them)": rb"....ftyp(?:he[ivm][cxsm]|m[is]f1)",
    "a video (MP4 or QuickTime)": rb"....ftyp",
    "a video (AVI)": rb"RIFF....AVI ",
    "a video (Matroska or WebM)": rb"\x1a\x45\xdf\xa3",
    "an icon (ICO)": rb"\x00\x00[\x01\x02]\x00",
    "a Photoshop file": rb"8BPS",
    "a PDF document": rb"%PDF-",
    "a ZIP archive or an office document": rb"PK\x03\x04",
    "a gzip archive": rb"\x1f\x8b",
    "a Parquet file": rb"PAR1",
    "an HTML page": rb"(?i:<!doctype html|<html|<head|<body)",
    "an SVG drawing": rb"(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!DOCTYPE svg[^>]*>\s*)?<svg",
    "XML": rb"<\?xml",
    "JSON": rb"\{\s*[\"}]|\[\s*[\"\[{\d\]]",
}
_SIGNATURES = [(name, re.compile(sig, re.DOTALL)) for name, sig in (_READABLE | _RECOGNISED).items()]
_BEFORE_MARKUP = b"\xef\xbb\xbf \t\r\n"
_HEAD_BYTES = 1024
_UNKNOWN = "no kind of file known here"


def image_format(data: bytes) -> ImageFormat | None:
    """The format of `data` if it is one this project can be set to read, damaged or not; else None."""
    name = _signature(data)
    return next((known for known in get_args(ImageFormat) if known == name), None)


def looks_like(data: bytes) -> str:
    """What `data` is, in words that complete "it looks like ..."."""
    if name := _signature(data):
        return name
    head = data[:_HEAD_BYTES]
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.end < len(head):
            return _UNKNOWN
        text = head[: error.start].decode()  # the cut went through a character
    return "plain text" if all(char.isprintable() or char.isspace() for char in text) else _UNKNOWN


def _signature(data: bytes) -> str | None:
    head = data[:_HEAD_BYTES]
    for start in (head, head.lstrip(_BEFORE_MARKUP)):
        for name, signature in _SIGNATURES:
            if signature.match(start):
                return name
    return None
