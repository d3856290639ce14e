"""The bounds that Ray Serve's proxy finds in its environment."""

import os
from dataclasses import asdict
from pathlib import Path

import pytest

from ffaa_core.errors import ConfigurationError
from ffaa_core.settings import DecodeSettings
from serve.app import assemble
from serve.config import ServeConfig, ServiceSettings
from serve.proxy_bounds import MARGIN_S, VARIABLES, Bounds, bind, require
from serve.release import Release


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES.values():
        monkeypatch.setenv(variable, "")  # and whatever a test sets is forgotten
        monkeypatch.delenv(variable)


def test_without_variables_they_fit_the_default_settings() -> None:
    bounds = Bounds.of_environment()
    assert bounds == Bounds.of(ServeConfig())
    assert bounds.body_bytes == ServeConfig().max_body_bytes
    assert bounds.seconds == ServiceSettings().deadline_seconds + MARGIN_S


def test_what_they_are_without_variables_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    for name, bound in asdict(Bounds.of_environment()).items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{VARIABLES[name]}` |")]
        assert f"{bound:.15g} " in line


def test_a_proxy_that_is_started_then_has_what_the_configuration_needs() -> None:
    config = ServeConfig(
        decode=DecodeSettings(max_bytes=12345), service=ServiceSettings(deadline_seconds=1.5)
    )
    bind(config)
    assert Bounds.of_environment() == Bounds.of(config)
    bind(config)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"decode": DecodeSettings(max_bytes=2**27)}, "FFAA_PROXY_BODY_BYTES"),
        ({"service": ServiceSettings(max_body_mib=1025)}, "FFAA_PROXY_ALL_BYTES"),
        ({"service": ServiceSettings(deadline_seconds=61)}, "FFAA_PROXY_SECONDS"),
    ],
)
def test_what_a_proxy_that_runs_would_cut_short_is_refused(settings: dict[str, object], named: str) -> None:
    bind(ServeConfig())
    before = dict(os.environ)
    with pytest.raises(ConfigurationError, match=named):
        bind(ServeConfig(**settings))  # type: ignore[arg-type]
    assert dict(os.environ) == before
    bind(ServeConfig(decode=DecodeSettings(max_bytes=1000)))


def test_on_a_cluster_the_variables_must_be_set_for_what_is_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    large = ServeConfig(decode=DecodeSettings(max_bytes=2**27))
    release = Release(bundle="", config=large, fingerprint="", warning=None)
    with pytest.raises(ConfigurationError, match="FFAA_PROXY_BODY_BYTES"):
        assemble(release)
    require(ServeConfig())
    monkeypatch.setenv("FFAA_PROXY_BODY_BYTES", str(large.max_body_bytes))
    require(large)


@pytest.mark.parametrize("text", ["0", "-1", "many", "nan", "inf"])
def test_a_bound_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FFAA_PROXY_SECONDS", text)
    with pytest.raises(ConfigurationError, match="FFAA_PROXY_SECONDS"):
        Bounds.of_environment()
