"""Write the sample images of `make demo` into a folder: `python infra/samples.py FOLDER`.

The photographs are scikit-image's and free of copyright; the rest is drawn here. Together they end in
different statuses: scored, no face, too large, damaged. Files that exist are left as they are, so that a
second demo finds nothing new.
"""

import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter
from skimage import data

EXIF_ORIENTATION = 0x0112
ROTATED_QUARTER_TURN = 6


def astronaut() -> Image.Image:
    """Portrait of Eileen Collins, NASA."""
    return Image.fromarray(data.astronaut())


def portrait() -> Image.Image:
    """The astronaut's head and shoulders."""
    return astronaut().crop((60, 0, 400, 340))


def two_people() -> Image.Image:
    """The portrait beside its smaller mirror image."""
    second = (
        portrait().transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((272, 272), Image.Resampling.LANCZOS)
    )
    image = Image.new("RGB", (640, 340), (90, 90, 100))
    image.paste(portrait(), (0, 0))
    image.paste(second, (354, 68))
    return image


def drawn_face() -> Image.Image:
    """A face of shaded ellipses."""
    image = Image.new("RGB", (480, 480), (96, 110, 128))
    draw = ImageDraw.Draw(image)
    draw.ellipse((105, 40, 375, 330), fill=(58, 40, 30))
    draw.rectangle((195, 350, 285, 480), fill=(196, 152, 126))
    draw.ellipse((125, 75, 355, 420), fill=(224, 182, 154))
    draw.ellipse((150, 250, 210, 310), fill=(214, 164, 140))
    draw.ellipse((270, 250, 330, 310), fill=(214, 164, 140))
    for left in (160, 260):
        draw.arc((left - 6, 172, left + 66, 230), 200, 340, fill=(60, 42, 32), width=9)
        draw.ellipse((left, 208, left + 60, 238), fill=(242, 240, 236))
        draw.ellipse((left + 16, 208, left + 44, 238), fill=(64, 46, 36))
        draw.arc((left - 2, 202, left + 62, 250), 190, 350, fill=(70, 48, 38), width=5)
    draw.polygon([(232, 225), (248, 225), (262, 298), (218, 298)], fill=(208, 162, 136))
    draw.ellipse((214, 286, 266, 312), fill=(196, 146, 122))
    draw.ellipse((222, 296, 234, 306), fill=(110, 72, 60))
    draw.ellipse((246, 296, 258, 306), fill=(110, 72, 60))
    draw.chord((186, 330, 294, 372), 0, 180, fill=(168, 82, 82))
    draw.line((186, 351, 294, 351), fill=(110, 48, 50), width=5)
    return image.filter(ImageFilter.GaussianBlur(2.5))


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    """The image's file content; `options` are Pillow's."""
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def rotated_by_exif() -> bytes:
    """The astronaut as a telephone held upright stores it: lying, with the turn noted in its EXIF data."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = ROTATED_QUARTER_TURN
    return encoded(astronaut().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=92, exif=exif)


def damaged() -> bytes:
    """The first half of a photograph's file."""
    content = encoded(astronaut(), "JPEG", quality=92)
    return content[: len(content) // 2]


SAMPLES: dict[str, Callable[[], bytes]] = {
    "astronaut.png": lambda: encoded(astronaut(), "PNG"),
    "coffee, no face.jpg": lambda: encoded(Image.fromarray(data.coffee()), "JPEG", quality=92),
    "damaged.jpg": damaged,
    "drawn face.png": lambda: encoded(drawn_face(), "PNG"),
    "not an image.jpg": lambda: b"This is a text whose name says that it is a photograph.\n",
    "rotated by exif.jpg": rotated_by_exif,
    "too many pixels.png": lambda: encoded(Image.new("1", (10_000, 10_000)), "PNG"),
    "two people.webp": lambda: encoded(two_people(), "WEBP", quality=92),
}


def main(folder: Path) -> None:
    """Write into `folder` those samples that are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in SAMPLES if not (folder / name).exists()]
    for name in missing:
        (folder / name).write_bytes(SAMPLES[name]())
    print(f"{len(SAMPLES)} sample images in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
