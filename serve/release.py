"""What one application serves: a bundle under settings, and so one fingerprint."""

from dataclasses import dataclass
from typing import Self

from ffaa_core.bundle import Bundle, resolve_manifest
from ffaa_core.bundle.proof import open_proved
from ffaa_core.settings import fingerprint
from serve.config import ServeConfig


@dataclass(frozen=True, kw_only=True)
class Release:
    """As it is sent to every deployment. `bundle` is a path or URL, `warning` the bundle's."""

    config: ServeConfig
    bundle: str
    fingerprint: str
    warning: str | None

    @classmethod
    def of(cls, config: ServeConfig) -> Self:
        """What this machine makes of the configuration. It fetches no models: that is for where they run.

        Raises:
            BundleError: there is no such bundle.
        """
        location, manifest = resolve_manifest(config.bundle)
        return cls(
            config=config,
            bundle=location,
            fingerprint=fingerprint(config.scoring, manifest.digests),
            warning=manifest.warning,
        )

    def open_bundle(self, *parts: str) -> Bundle:
        """The bundle on this machine, proved to be the same in `parts`.

        Raises:
            BundleError: it is another one, or its files were changed.
        """
        return open_proved(self.bundle, self.config.scoring, self.fingerprint, parts)
