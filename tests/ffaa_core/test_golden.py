"""What is measured, pinned: a change of these values is a change of `SCORING_VERSION`.

After raising it, write the new values with `python -m tests.ffaa_core.test_golden`.
"""

import json
from pathlib import Path
from typing import Any

from skimage import data

from ffaa_core.answers import Answer, Determination, Fields, ForgeryType
from ffaa_core.grammar import answer_regex, budget
from ffaa_core.pipeline import examine
from ffaa_core.questions import Question, conversation, wording
from ffaa_core.settings import SCORING_VERSION, AnswerSettings, FaceMode, FaceSettings, ScoringSettings
from ffaa_core.verdict import Box, FaceVerdict, Status, judge
from tests.images import png

GOLDEN = Path(__file__).parent / "golden.json"
MODES: tuple[FaceMode, ...] = ("detect", "published", "whole_image")
LOGITS = [[0.5, -1.0, 1.5, 0.25], [1.0, 0.0, 2.0, -1.0], [-0.5, 0.75, 0.0, 1.25]]


def measured() -> dict[str, Any]:
    """Everything between an image's bytes and its verdict that is exact on every machine."""
    photograph = png(data.astronaut())
    tokens = budget(AnswerSettings().max_tokens)
    return {
        "prompts": [conversation(wording(question)) for question in Question],
        "second_pass": [tokens, answer_regex(tokens)],
        "masked_answer": fields(Determination.FAKE).masked(),
        "faces": {mode: found(photograph, mode) for mode in MODES},
        "verdict": verdict(),
    }


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


def test_what_is_measured_changes_only_with_the_scoring_version() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert golden["scoring_version"] == SCORING_VERSION, "write the new golden values, as the module says"
    for name, value in measured().items():
        assert json.loads(json.dumps(value)) == golden[name], (
            f"{name} changed, and so what is measured: raise SCORING_VERSION and write new golden values"
        )


if __name__ == "__main__":
    content = {"scoring_version": SCORING_VERSION, **measured()}
    GOLDEN.write_text(json.dumps(content, indent=2) + "\n")
