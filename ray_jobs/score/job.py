"""What every stage of one run must know, and how it gets hold of the run and the bundle."""

import platform
from dataclasses import dataclass
from functools import lru_cache

from ffaa_core.bundle import Bundle
from ffaa_core.bundle.proof import open_proved
from ffaa_core.errors import ConfigurationError, NotFoundError
from ffaa_core.storage import open_store
from ffaa_core.table import Run
from ray_jobs.score.config import ScoreConfig


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of the score job, as it is sent to the stages. `bundle` is a path or URL."""

    output: str
    run: int
    fingerprint: str
    bundle: str
    config: ScoreConfig

    def open_run(self) -> Run:
        """The sealed run; opened once a process.

        Raises:
            ConfigurationError: this machine does not see OUTPUT.
        """
        try:
            return _open_run(self.output, self.run)
        except NotFoundError as error:
            raise ConfigurationError(
                f"{error} on {platform.node()}: OUTPUT must be on S3 or on a disk that every node has"
            ) from error

    def open_bundle(self, *parts: str) -> Bundle:
        """The bundle, once the contents of `parts` are proved to be what the plan was sealed for.

        Raises:
            BundleError: this machine has another bundle, or one whose files were changed.
        """
        return open_proved(self.bundle, self.config.scoring, self.fingerprint, parts)


@lru_cache(maxsize=4)
def _open_run(output: str, ordinal: int) -> Run:
    return Run.load(open_store(output), ordinal)
