"""The faces of an image: where they are, and the crop of each.

Source of `published`: the published code, which takes the first face of dlib's HOG frontal detector.
docs/faces.md says how `detect` differs from it, and by how much.
"""

import hashlib
import threading
from dataclasses import dataclass

import dlib

from ffaa_core.crops import crop_face, whole_image
from ffaa_core.decoding import DecodedImage, Pixels
from ffaa_core.settings import FaceSettings
from ffaa_core.verdict import Box

_SMALL_IMAGE = 320 * 320
"""Pixels up to which `detect` looks for faces under 80 pixels too, for which an image must be doubled."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Face:
    """One face: its box in the decoded image, dlib's score of it, and its crop.

    `crop` is uint8 (CROP_SIZE, CROP_SIZE, 3) RGB, `crop_sha256` the hex digest of its pixels.
    `detection_score` is how far dlib's detector is over its threshold, 0 to about 4; None for a whole image.
    """

    box: Box
    detection_score: float | None
    crop: Pixels
    crop_sha256: str


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundFaces:
    """The faces to score, and how many the detector found.

    `n_detected` exceeds the number of `faces` where the mode or `max_faces` leaves some out, or too much
    of a box lies outside the image to be cropped.
    """

    n_detected: int
    faces: tuple[Face, ...]


@dataclass(frozen=True, kw_only=True)
class _Detection:
    box: Box
    score: float


def find_faces(image: DecodedImage, settings: FaceSettings) -> FoundFaces:
    """Find and crop the faces of `image` as `settings.mode` says.

    For `published` to equal the published behaviour, `image` must be decoded without EXIF orientation.
    """
    if settings.mode == "whole_image":
        box = Box(left=0, top=0, right=image.width, bottom=image.height)
        return FoundFaces(n_detected=1, faces=(_face(box, None, whole_image(image.pixels)),))
    if settings.mode == "published":
        detections = _detect(image.pixels, upsample=1)
        chosen = detections[:1]
    else:
        small = image.width * image.height <= _SMALL_IMAGE
        detections = _detect(image.pixels, upsample=1 if small else 0)
        chosen = sorted(detections, key=_largest_first)[: settings.max_faces]
    crops = [(one, crop_face(image.pixels, one.box, settings.margin)) for one in chosen]
    faces = tuple(_face(one.box, one.score, crop) for one, crop in crops if crop is not None)
    return FoundFaces(n_detected=len(detections), faces=faces)


def _detect(pixels: Pixels, *, upsample: int) -> list[_Detection]:
    """dlib's detections, surest first: faces from about 80 pixels, from 40 if upsampled once."""
    rectangles, scores, _ = detector().run(pixels, upsample, 0.0)
    return [
        # dlib's right and bottom are the last inside. The published code takes them for the first outside.
        _Detection(box=Box(left=at.left(), top=at.top(), right=at.right(), bottom=at.bottom()), score=score)
        for at, score in zip(rectangles, scores, strict=True)
    ]


def _largest_first(one: _Detection) -> tuple[int, float, int, int]:
    return -one.box.width * one.box.height, -one.score, one.box.top, one.box.left


def _face(box: Box, score: float | None, crop: Pixels) -> Face:
    digest = hashlib.sha256(crop.tobytes()).hexdigest()
    return Face(box=box, detection_score=score, crop=crop, crop_sha256=digest)


_this_thread = threading.local()


def detector() -> "dlib.fhog_object_detector":
    """This thread's detector. Making one takes 0.2 s, and it holds the image it works on: never shared."""
    if not hasattr(_this_thread, "detector"):
        _this_thread.detector = dlib.get_frontal_face_detector()
    return _this_thread.detector
