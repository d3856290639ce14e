"""From the bytes of an upload, which may be anything, to the RGB pixels of its first picture.

What is done to which format is set out in docs/faces.md.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ffaa_core import file_types
from ffaa_core.errors import DecodeError, ImageError, TooLargeError
from ffaa_core.settings import DecodeSettings, ImageFormat

Pixels = npt.NDArray[np.uint8]
"""(height, width, 3), RGB."""

BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels: white, as on most pages that would show the picture."""

# Pillow's classes are called directly: `Image.open` would turn many a phone's JPEG into an MPO, and check the
# size against a limit of the whole process before ours.
_READERS: dict[ImageFormat, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
}
_CONVERTIBLE = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
_ORIENTATION_TAG = 0x0112
_UPRIGHT_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns of odd metadata, of which uploads are full and which change no pixel. Silenced once for the
# process, since `warnings.catch_warnings` is not safe between threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedImage:
    """A picture ready for face detection.

    `pixels` is uint8 (height, width, 3) RGB and not to be written to; `format` is the file's.
    """

    pixels: Pixels
    format: ImageFormat

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def decode(data: bytes, settings: DecodeSettings, *, exif_orientation: bool = True) -> DecodedImage:
    """Decode the first picture in `data`, told by content.

    Args:
        data: a whole file.
        settings: formats read, and the limits on bytes and pixels, checked before pixels are decoded.
        exif_orientation: turn the picture upright as its EXIF data say; the published code does not. A TIFF
            is turned in any case: there it is part of the format, and Pillow does it while decoding.

    Raises:
        DecodeError: `data` is damaged, or not in one of `settings.formats`. Says which.
        TooLargeError: a limit is exceeded. Says by how much.
    """
    if len(data) > settings.max_bytes:
        raise TooLargeError(f"{len(data):,} bytes; the limit is {settings.max_bytes:,}")
    kind = _format(data, settings)
    try:
        image = _READERS[kind](io.BytesIO(data))
        _check_pixels(image, settings)
        image.load()
        orientation = _orientation(image) if exif_orientation else None
        rgb = _to_rgb(image)
        if orientation in _UPRIGHT_BY:
            rgb = rgb.transpose(_UPRIGHT_BY[orientation])
        return DecodedImage(pixels=np.asarray(rgb), format=kind)
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"more pixels than can be read; the limit is {settings.max_pixels:,}") from error
    except Exception as error:
        raise DecodeError(f"the {kind} is cut off or damaged: {_reason(error)}") from error


def _format(data: bytes, settings: DecodeSettings) -> ImageFormat:
    if not data:
        raise DecodeError("the file is empty (0 bytes)")
    kind = file_types.image_format(data)
    if kind in settings.formats:
        return kind
    if kind is None:
        problem = f"not an image this project reads: it looks like {file_types.looks_like(data)}"
    else:
        problem = f"{kind} images are read only when asked for: add {kind} to decode.formats"
    raise DecodeError(f"{problem}; formats read are {', '.join(settings.formats)}")


def _check_pixels(image: Image.Image, settings: DecodeSettings) -> None:
    pixels = image.width * image.height
    if pixels > settings.max_pixels:
        size = f"{image.width}×{image.height}"  # noqa: RUF001
        raise TooLargeError(f"{size} pixels, {pixels:,} in all; the limit is {settings.max_pixels:,}")


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation. Unreadable EXIF data say nothing, and do not damage the picture."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG)
    except MemoryError:
        raise
    except Exception:
        return None
    return value if isinstance(value, int) else None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # The high byte, which is what Pillow keeps of 16-bit colour. Its own conversion clips at 255.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode not in _CONVERTIBLE:
        raise DecodeError(
            f"its pixels are of a kind this project does not read (Pillow calls it {image.mode}): "
            "save it as grey, RGB or CMYK with 8 or 16 bits a channel"
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        flat = Image.new("RGB", image.size, BACKGROUND)
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return flat
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error: Exception) -> str:
    """What a Pillow error means, for a reader who does not know Pillow. Others get the error as cause."""
    text = str(error).lower()
    if "truncat" in text or isinstance(error, EOFError):
        return "it ends before its picture is complete"
    if "text chunk" in text or "max_text_chunk" in text:
        return "a text block in it unpacks to more than is allowed"
    if isinstance(error, SyntaxError):  # Pillow's sign that a header cannot be read
        return "its header makes no sense"
    return "its picture data make no sense"
