"""Opening a bundle where it is used, and proving that it is the one that was meant."""

from collections.abc import Collection

from ffaa_core.bundle.bundle import Bundle
from ffaa_core.errors import BundleError
from ffaa_core.settings import ScoringSettings, fingerprint


def open_proved(location: str, scoring: ScoringSettings, expected: str, parts: Collection[str]) -> Bundle:
    """The bundle at `location`, once the contents of `parts` are proved to be what they should.

    Args:
        location: path or URL, the same on every machine.
        scoring: the settings that it is used with.
        expected: the fingerprint that these and the bundle gave where the work was planned.

    Raises:
        BundleError: this machine has another bundle, or one whose files were changed.
    """
    bundle = Bundle.open(location)
    found = fingerprint(scoring, bundle.digests)
    if found != expected:
        raise BundleError(
            f"the bundle at {location} on this machine gives the fingerprint {found}, but {expected} was "
            "planned for: every machine needs the same bundle and the same version"
        )
    bundle.verify(parts)
    return bundle
