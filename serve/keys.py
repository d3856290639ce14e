"""Who is let in: bearer keys, of which the service knows digests only."""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from ffaa_core.errors import ConfigurationError
from serve.config import ServiceSettings
from serve.problems import ProblemError

VARIABLE = "FFAA_API_KEYS"
"""Names the environment variable with digests of keys, separated by commas."""
ANYBODY = "anonymous"
"""The owner of what is scored where everybody is let in."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Keys:
    """The digests of the keys that are let in; None lets everybody in.

    `Keys.of` reads them from the settings and the environment.
    """

    def __init__(self, digests: Iterable[str] | None) -> None:
        self._digests = None if digests is None else sorted(set(digests))

    @classmethod
    def of(cls, settings: ServiceSettings) -> Self:
        """The keys of `settings.keys_file` and of `FFAA_API_KEYS`.

        Raises:
            ConfigurationError: there are none and `anonymous` is not set, or what is there is no digest.
        """
        digests = _in_variable() + (_in_file(Path(settings.keys_file)) if settings.keys_file else [])
        if settings.anonymous:
            if digests:
                raise ConfigurationError(
                    f"service.anonymous lets everybody in, and yet there are keys in {VARIABLE} or "
                    "service.keys_file: take away one or the other"
                )
            return cls(None)
        if not digests:
            raise ConfigurationError(
                "the service has no keys: make one with `ffaa serve --make-key`, and give its digest in "
                f"{VARIABLE} or in a file named by service.keys_file; or let everybody in with --anonymous"
            )
        return cls(digests)

    def owner(self, authorization: str | None) -> str:
        """Whose request this is, by its Authorization header: the digest of its key.

        Raises:
            ProblemError: 401, there is no key, or one that is not known.
        """
        if self._digests is None:
            return ANYBODY
        scheme, _, key = (authorization or "").partition(" ")
        given = digest(key.strip())
        # All of them are compared, whichever fits, so that time tells nothing.
        fits = [hmac.compare_digest(given, known) for known in self._digests]
        if scheme.lower() != "bearer" or not any(fits):
            raise ProblemError(
                401,
                "unauthorized",
                "A key is needed",
                "send `Authorization: Bearer KEY` with a key of this service",
                {"WWW-Authenticate": "Bearer"},
            )
        return given


def digest(key: str) -> str:
    """The sha256 of a key, in hex: what the service is told of it."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def make_key() -> tuple[str, str]:
    """A new key, and its digest."""
    key = f"ffaa-{secrets.token_urlsafe(32)}"
    return key, digest(key)


def _in_variable() -> list[str]:
    stated = (entry.strip() for entry in os.environ.get(VARIABLE, "").split(","))
    return [_checked(entry, VARIABLE) for entry in stated if entry]


def _in_file(path: Path) -> list[str]:
    """The first word of every line; what follows it, and a line that begins with #, is a remark."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read service.keys_file {path}: {error}") from error
    words = (line.split(maxsplit=1)[0] for line in lines if line.strip())
    return [_checked(word, str(path)) for word in words if not word.startswith("#")]


def _checked(entry: str, source: str) -> str:
    if not _DIGEST.fullmatch(entry):
        raise ConfigurationError(
            f"{source} holds something that is no sha256 in 64 hex digits: give digests of keys, never keys"
        )
    return entry
