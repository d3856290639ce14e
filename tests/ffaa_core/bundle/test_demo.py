"""The demo bundle means nothing, but it must show everything: real, fake and contested verdicts."""

from pathlib import Path

import cv2
import pytest

from ffaa_core.answers import Answer, Determination, Fields
from ffaa_core.bundle import Bundle
from ffaa_core.bundle.demo_text import sentences
from ffaa_core.mids import Judge
from ffaa_core.questions import Question
from ffaa_core.verdict import Box, FaceVerdict, Status, judge


def test_the_bundle_says_of_itself_that_its_verdicts_mean_nothing(demo_bundle: Bundle) -> None:
    assert "verdicts mean nothing" in (demo_bundle.warning or "")
    assert "mean nothing" in (demo_bundle.path / "README.md").read_text()
    assert demo_bundle.provenance == {"made_by": "ffaa bundle demo", "seed": 0}


def test_its_files_may_be_read_by_everyone(demo_bundle: Bundle) -> None:
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in demo_bundle.path.rglob("*") if file.is_file())


@pytest.mark.parametrize("says", [("real", "real", "fake"), ("fake", "real", "fake")])
def test_photographs_given_the_same_answers_get_both_verdicts(
    demo_bundle: Bundle, shared_faces: Path, says: tuple[str, ...]
) -> None:
    verdicts = [face.verdict for face in judged(demo_bundle, shared_faces, says)]
    rarer = min(verdicts.count(Determination.REAL), verdicts.count(Determination.FAKE))
    assert rarer >= len(verdicts) / 10


def test_some_photographs_are_contested_where_all_answers_agree(
    demo_bundle: Bundle, shared_faces: Path
) -> None:
    for says in ("real", "fake"):
        contested = [face.contested for face in judged(demo_bundle, shared_faces, (says,) * 3)]
        assert any(contested)
        assert not all(contested)


def judged(bundle: Bundle, shared_faces: Path, says: tuple[str, ...]) -> list[FaceVerdict]:
    files = sorted((shared_faces / "forgery").glob("*/*.jpg"))[::60]
    crops = [cv2.cvtColor(cv2.resize(cv2.imread(str(f)), (336, 336)), cv2.COLOR_BGR2RGB) for f in files]
    spoken = [fields for text in sentences() if (fields := Fields.parse(text))]
    fields = [next(f for f in spoken[10 * i :] if f.result == result) for i, result in enumerate(says)]
    answers = [
        Answer(question=question, text=f.render(), fields=f, finish_reason="stop")
        for question, f in zip(Question, fields, strict=True)
    ]
    face = FaceVerdict(
        box=Box(left=0, top=0, right=336, bottom=336),
        detection_score=None,
        status=Status.JUDGE_FAILED,
        crop_sha256="",
    )
    logits = Judge.load(bundle, "cpu").logits(crops, [[f.masked() for f in fields]] * len(crops))
    return [judge(face, answers, of_face) for of_face in logits if of_face is not None]
