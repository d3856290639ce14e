"""What is measured, pinned: a change of these values is a change of `SCORING_VERSION`.

After raising it, write the new values with `python -m tests.ffaa_core.test_golden`. That refuses to change
values under a version that has them; `--same-version` is for values pinned for the first time.
"""

import hashlib
import io
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from ffaa_core.answers import Answer, Determination, Fields, ForgeryType
from ffaa_core.bundle import Bundle
from ffaa_core.bundle.demo import write_demo_bundle
from ffaa_core.decoding import decode
from ffaa_core.grammar import answer_regex, budget
from ffaa_core.mids import Judge
from ffaa_core.mids.judge import normalise
from ffaa_core.mids.loading import tokenize
from ffaa_core.pipeline import examine
from ffaa_core.questions import Question, conversation, wording
from ffaa_core.settings import (
    CROP_SIZE,
    SCORING_VERSION,
    AnswerSettings,
    DecodeSettings,
    FaceMode,
    FaceSettings,
    ScoringSettings,
)
from ffaa_core.verdict import Box, FaceVerdict, Status, judge
from tests.images import png

GOLDEN = Path(__file__).parent / "golden.json"
MODES: tuple[FaceMode, ...] = ("detect", "published", "whole_image")
NOISE = 2e-3
"""What the arithmetic of another machine may do to MIDS's logits."""

LOGITS = [[0.5, -1.0, 1.5, 0.25], [1.0, 0.0, 2.0, -1.0], [-0.5, 0.75, 0.0, 1.25]]


DESCRIBED = "Image description: A man.\nForgery reasoning: Soft seams.\n"
REAL = f"{DESCRIBED}Analysis result: Real\nProbability: 0.90\nForgery type: N/A"
FAKE = f"{DESCRIBED}Analysis result: Fake\nProbability: 0.90\nForgery type: Identity exchange"
ANSWERS = (
    REAL,
    FAKE,
    FAKE.lower(),
    f"\n {FAKE} .\n",
    FAKE.replace("Fake\n", "Fake.\n").replace("exchange", "exchange."),
    FAKE.replace("Identity exchange", "Facial attribute manipulation"),
    FAKE.replace("Identity exchange", "Entire face synthesis"),
    FAKE.replace("Soft seams.", "Soft seams.\n\nWaxy skin: everywhere."),
    REAL.replace("0.90", "1"),
    REAL.replace("0.90", "0.12345"),
    # Malformed from here on.
    "",
    "The image is fake.",
    REAL.replace("0.90", "1.01"),
    REAL.replace("0.90", "90%"),
    REAL.replace("N/A", "Identity exchange"),
    FAKE.replace("Identity exchange", "N/A"),
    FAKE.replace("Identity exchange", "Deepfake"),
    FAKE.replace("Fake", "Unsure"),
    REAL.replace("A man.", " "),
    REAL.replace("Forgery reasoning: Soft seams.\n", ""),
    REAL.rpartition("\n")[0],
    f"{REAL}\nThat is all I can say!",
)


def exact() -> dict[str, Any]:
    """What is the same on every machine, of everything between an image's bytes and its verdict."""
    photograph = png(data.astronaut())
    tokens = budget(AnswerSettings().max_tokens)
    return {
        "prompts": [conversation(wording(question)) for question in Question],
        "open_questions": [wording(Question.OPEN, number) for number in range(10)],
        "second_pass": [tokens, answer_regex(tokens)],
        "parsed": [(parsed := Fields.parse(text)) and asdict(parsed) for text in ANSWERS],
        "masked_answer": fields(Determination.FAKE).masked(),
        "decoded": {name: decoded(file) for name, file in odd_files().items()},
        "faces": {mode: found(photograph, mode) for mode in MODES},
        "mids_input": digest(np.round(normalise(crop(0)).numpy(), 4)),
        "verdict": verdict(),
    }


def of_demo_bundle(bundle: Bundle) -> dict[str, Any]:
    """What its tokenizer makes of a masked answer, exactly, and its MIDS of faces, up to noise."""
    mids = Judge.load(bundle, "cpu")
    ids, _ = tokenize(mids.tokenizer, [[fields(Determination.FAKE).masked()]])
    # Answers of unequal lengths, so that padding counts, and one of more than 512 tokens.
    answers = ["Her eyes agree.", fields(Determination.FAKE).masked(), "soft seams " * 300]
    logits = mids.logits([crop(0), crop(1)], [answers, answers[:2] + answers[:1]])
    return {
        "token_ids": ids[0, 0].tolist(),
        "mids_logits": [None if of_face is None else of_face.round(3).tolist() for of_face in logits],
    }


def crop(seed: int) -> NDArray[np.uint8]:
    coarse = np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    return coarse.repeat(CROP_SIZE // 8, 0).repeat(CROP_SIZE // 8, 1)


def odd_files() -> dict[str, bytes]:
    """Pictures whose pixels do not come as three bytes of RGB, in formats that keep every bit."""
    rgb = np.random.RandomState(0).randint(0, 256, (7, 5, 3)).astype(np.uint8)
    alpha = np.arange(35, dtype=np.uint8).reshape(7, 5, 1) * 7
    deep = rgb.astype(np.uint16) * 256 + rgb[::-1]
    picture, see_through = Image.fromarray(rgb), Image.fromarray(np.dstack([rgb, alpha]))
    palette = Image.fromarray(rgb[..., 0] % 4)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "alpha.png": saved(see_through, "PNG"),
        "alpha.webp": saved(see_through, "WEBP", lossless=True, exact=True),
        "grey_alpha.png": saved(see_through.convert("LA"), "PNG"),
        "palette.png": saved(palette, "PNG"),
        "palette_transparent.png": saved(palette, "PNG", transparency=2),
        "palette.gif": saved(palette, "GIF"),
        "one_bit.png": saved(picture.convert("1"), "PNG"),
        "grey_16.png": saved(Image.fromarray(deep[..., 0]), "PNG"),
        "rgb_16.png": cv2.imencode(".png", deep)[1].tobytes(),
        "cmyk.tiff": saved(Image.fromarray(np.dstack([rgb, alpha]), "CMYK"), "TIFF"),
        "turned.png": saved(picture, "PNG", exif=turned),
        "turned.webp": saved(picture, "WEBP", lossless=True, exif=turned.tobytes()),
    }


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(file: bytes) -> dict[str, str]:
    """Height, width and digest of the upright picture, and of the one that `published` mode sees."""
    settings = DecodeSettings(formats=("PNG", "WEBP", "GIF", "TIFF"))
    pictures = {
        "upright": decode(file, settings).pixels,
        "published": decode(file, settings, exif_orientation=False).pixels,
    }
    return {
        name: f"{pixels.shape[0]}x{pixels.shape[1]} {digest(pixels)}" for name, pixels in pictures.items()
    }


def digest(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def found(photograph: bytes, mode: FaceMode) -> list[Any]:
    pending = examine(photograph, ScoringSettings(faces=FaceSettings(mode=mode)))
    return [
        [box.left, box.top, box.right, box.bottom, face.face.crop_sha256]
        for face in pending.faces
        for box in [face.face.box]
    ]


def fields(result: Determination) -> Fields:
    kind = ForgeryType.ENTIRE_FACE_SYNTHESIS if result is Determination.FAKE else None
    return Fields(
        description="A woman smiles.",
        reasoning="Her eyes agree.",
        result=result,
        probability=0.8,
        forgery_type=kind,
    )


def verdict() -> dict[str, Any]:
    answers = [
        Answer(question=question, text="", fields=fields(result), finish_reason="stop")
        for question, result in zip(Question, [*Determination, Determination.REAL], strict=True)
    ]
    box = Box(left=0, top=0, right=1, bottom=1)
    face = FaceVerdict(box=box, detection_score=1.0, status=Status.ANSWER_FAILED, crop_sha256="")
    judged = judge(face, answers, LOGITS)
    assert judged.forgery_score is not None
    return {
        "verdict": judged.verdict,
        "chosen": judged.chosen,
        "forgery_score": round(judged.forgery_score, 9),
        "difficulty": judged.difficulty,
        "contested": judged.contested,
    }


def test_what_is_measured_changes_only_with_the_scoring_version(demo_bundle: Bundle) -> None:
    golden = json.loads(GOLDEN.read_text())
    measured = json.loads(json.dumps(exact() | of_demo_bundle(demo_bundle)))
    assert golden.pop("scoring_version") == SCORING_VERSION, "write the new golden values, as the module says"
    assert golden.keys() == measured.keys()
    logits, pinned_logits = measured.pop("mids_logits"), golden.pop("mids_logits")
    for name, value in measured.items():
        assert value == golden[name], (
            f"{name} changed, and so what is measured: raise SCORING_VERSION and write new golden values"
        )
    np.testing.assert_allclose(logits, pinned_logits, rtol=0, atol=NOISE, err_msg="raise SCORING_VERSION")


def test_values_are_not_written_anew_under_a_version_that_has_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    golden = tmp_path / "golden.json"
    golden.write_text('{"scoring_version": 1}')
    monkeypatch.setattr(sys.modules[__name__], "GOLDEN", golden)
    with pytest.raises(SystemExit, match="raise SCORING_VERSION"):
        write({"scoring_version": 1, "new": 1})
    write({"scoring_version": 1, "new": 1}, same_version=True)
    write({"scoring_version": 2, "new": 2})
    assert json.loads(golden.read_text()) == {"scoring_version": 2, "new": 2}


def write(values: dict[str, Any], *, same_version: bool = False) -> None:
    pinned = json.loads(GOLDEN.read_text())["scoring_version"]
    if pinned == values["scoring_version"] and not same_version:
        sys.exit(f"version {pinned} has its values: raise SCORING_VERSION, or say --same-version")
    GOLDEN.write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        demo = of_demo_bundle(write_demo_bundle(Path(folder) / "demo"))
    values = {"scoring_version": SCORING_VERSION, **exact(), **demo}
    write(values, same_version="--same-version" in sys.argv)
