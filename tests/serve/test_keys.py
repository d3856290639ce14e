"""Who is let in."""

from pathlib import Path

import pytest

from ffaa_core.errors import ConfigurationError
from serve.config import ServiceSettings
from serve.keys import ANYBODY, VARIABLE, Keys, digest, make_key
from serve.problems import ProblemError

DIGEST, OTHER = digest("one"), digest("other")


@pytest.fixture(autouse=True)
def no_keys_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_known_key_says_whose_a_request_is() -> None:
    keys = Keys([DIGEST, OTHER])
    assert keys.owner("Bearer one") == DIGEST
    assert keys.owner("bearer other") == OTHER


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer two",
        "Basic one",
        "one",
        f"Bearer {DIGEST}",
        "Bearer one two",
        "é",
    ],
)
def test_whoever_has_no_known_key_is_not_let_in(authorization: str | None) -> None:
    with pytest.raises(ProblemError) as refused:
        Keys([DIGEST]).owner(authorization)
    assert refused.value.status == 401
    assert refused.value.headers == {"WWW-Authenticate": "Bearer"}


def test_keys_come_from_the_environment_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f" {DIGEST} ,,")
    file = tmp_path / "keys"
    file.write_text(f"# for the upload page\n\n{OTHER} the page\n")
    keys = Keys.of(ServiceSettings(keys_file=str(file)))
    assert keys.owner("Bearer one") == DIGEST
    assert keys.owner("Bearer other") == OTHER


def test_without_keys_the_service_does_not_start_unless_it_is_told_to() -> None:
    with pytest.raises(ConfigurationError, match="--make-key"):
        Keys.of(ServiceSettings())
    assert Keys.of(ServiceSettings(anonymous=True)).owner(None) == ANYBODY


def test_keys_for_a_service_that_lets_everybody_in_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, DIGEST)
    with pytest.raises(ConfigurationError, match="anonymous"):
        Keys.of(ServiceSettings(anonymous=True))


def test_a_key_in_place_of_its_digest_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "the-key-itself")
    with pytest.raises(ConfigurationError, match=VARIABLE) as refused:
        Keys.of(ServiceSettings())
    assert "the-key-itself" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=str(tmp_path / "none")):
        Keys.of(ServiceSettings(keys_file=str(tmp_path / "none")))


def test_a_key_that_was_made_fits_its_digest_and_no_other_one() -> None:
    (key, its_digest), (other_key, _) = make_key(), make_key()
    assert Keys([its_digest]).owner(f"Bearer {key}") == its_digest
    with pytest.raises(ProblemError):
        Keys([its_digest]).owner(f"Bearer {other_key}")
