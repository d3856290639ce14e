"""Settings are checked when they are made, and make the fingerprint."""

from typing import Any

import pytest
from pydantic import ValidationError

from ffaa_core import settings as settings_module
from ffaa_core.errors import ConfigurationError
from ffaa_core.settings import AnswerSettings, EngineSettings, FaceSettings, ScoringSettings, fingerprint

DIGESTS = {"mllm": "a", "adapter": "b", "mids": "c", "vision": "d", "text": "e"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"faces": {"mode": "some"}}, "faces.mode"),
        ({"faces": {"max_faces": 0}}, "faces.max_faces"),
        ({"faces": {"margin": -1}}, "faces.margin"),
        ({"decode": {"formats": ["AVIF"]}}, "decode.formats.0"),
        ({"decode": {"max_pixels": "many"}}, "decode.max_pixels"),
        ({"answers": {"open_question": 10}}, "answers.open_question"),
        ({"answers": {"max_token": 5}}, "answers.max_token"),
        ({"fases": {}}, "fases"),
        ({"faces": None}, "faces"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told.replace(".", r"\.")):
        ScoringSettings.from_dict(values)


def test_all_wrong_settings_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)faces\.mode.*answers\.max_tokens"):
        ScoringSettings.from_dict({"faces": {"mode": "x"}, "answers": {"max_tokens": 0}})


@pytest.mark.parametrize(
    "wrong",
    [{"gpu_memory_utilization": 1.5}, {"adapter": "half"}, {"dtype": "int8"}, {"tensor_parallel_size": 0}],
)
def test_engine_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        EngineSettings(**wrong)


def test_settings_survive_their_plain_form() -> None:
    settings = ScoringSettings(faces=FaceSettings(mode="published"), answers=AnswerSettings(max_tokens=7))
    assert ScoringSettings.from_dict(settings.to_dict()) == settings


def test_settings_cannot_be_changed_after_they_are_made() -> None:
    with pytest.raises(AttributeError):
        ScoringSettings().faces.margin = 3  # type: ignore[misc]


def test_the_fingerprint_depends_on_settings_bundle_and_scoring_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = fingerprint(ScoringSettings(), DIGESTS)
    others = [
        fingerprint(ScoringSettings(faces=FaceSettings(margin=20)), DIGESTS),
        fingerprint(ScoringSettings(), DIGESTS | {"adapter": "another"}),
        fingerprint(
            ScoringSettings(), {name: digest for name, digest in DIGESTS.items() if name != "adapter"}
        ),
    ]
    monkeypatch.setattr(settings_module, "SCORING_VERSION", settings_module.SCORING_VERSION + 1)
    others.append(fingerprint(ScoringSettings(), DIGESTS))
    assert len({first, *others}) == 5


def test_the_fingerprint_does_not_depend_on_the_order_of_digests() -> None:
    backwards = dict(reversed(DIGESTS.items()))
    assert fingerprint(ScoringSettings(), backwards) == fingerprint(ScoringSettings(), DIGESTS)
