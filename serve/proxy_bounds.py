"""What Ray Serve's proxy bounds before a gateway sees a request. It starts before any application, and keeps
the bounds that it finds in its environment.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from ffaa_core.errors import ConfigurationError
from serve.config import ServeConfig

MARGIN_S = 5.0
"""How much longer than its deadline a request may be without a reply, so that the gateway is the one to say
why. One that no gateway took is given up then, too.
"""

VARIABLES = {
    "body_bytes": "FFAA_PROXY_BODY_BYTES",
    "all_bytes": "FFAA_PROXY_ALL_BYTES",
    "seconds": "FFAA_PROXY_SECONDS",
}
"""The environment variable of each bound."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """`body_bytes` of one body, `all_bytes` of those of all requests under way in one proxy, and `seconds`
    until a reply begins.
    """

    body_bytes: int
    all_bytes: int
    seconds: float

    @classmethod
    def of(cls, config: ServeConfig) -> Self:
        """Those that no request meets of which a gateway would take more."""
        return cls(
            body_bytes=config.max_body_bytes,
            all_bytes=config.service.max_body_mib * 2**20,
            seconds=config.service.deadline_seconds + MARGIN_S,
        )

    @classmethod
    def of_environment(cls) -> Self:
        """Those of the variables; what is not set has the default settings' bound.

        Raises:
            ConfigurationError: a variable is no number above 0.
        """
        bounds = asdict(cls.of(ServeConfig())) | _stated()
        return cls(
            body_bytes=int(bounds["body_bytes"]),
            all_bytes=int(bounds["all_bytes"]),
            seconds=bounds["seconds"],
        )


def bind(config: ServeConfig) -> None:
    """Hand the bounds that `config` needs to a proxy that this process is to start, or see that the one that
    it has started leaves `config` enough.

    Raises:
        ConfigurationError: it has less, which would be refused without a gateway's knowing.
    """
    needed, stated = asdict(Bounds.of(config)), _stated()
    _require_enough(needed, stated)
    for name in needed.keys() - stated.keys():
        os.environ[VARIABLES[name]] = f"{needed[name]:.15g}"


def require(config: ServeConfig) -> None:
    """See that a proxy of this environment leaves `config` enough: on a cluster nobody sets it.

    Raises:
        ConfigurationError: it has less.
    """
    _require_enough(asdict(Bounds.of(config)), asdict(Bounds.of_environment()))


def _require_enough(needed: Mapping[str, float], stated: Mapping[str, float]) -> None:
    for name, bound in stated.items():
        if bound < needed[name]:
            raise ConfigurationError(
                f"the configuration needs {VARIABLES[name]} to be {needed[name]:.15g}, and Ray Serve's proxy "
                f"was started with {bound:.15g}, which it keeps: end the service and start it anew (on a "
                "cluster with this variable on every node), or lower decode.max_bytes, service.max_body_mib "
                "or service.deadline_seconds"
            )


def _stated() -> dict[str, float]:
    """The bounds whose variables are set.

    Raises:
        ConfigurationError: one is no number above 0.
    """
    texts = {name: os.environ.get(variable) for name, variable in VARIABLES.items()}
    return {name: _number(VARIABLES[name], text) for name, text in texts.items() if text}


def _number(variable: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigurationError(f"{variable} is {text!r}; it must be a number above 0")
    return value
