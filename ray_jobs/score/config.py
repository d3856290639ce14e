"""Everything `ffaa score` can be told, from its configuration file and options."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from ffaa_core.errors import ConfigurationError
from ffaa_core.examiner import IMAGE_SECONDS
from ffaa_core.scorer_settings import ScorerSettings
from ffaa_core.settings import STRICT
from ffaa_core.table.plan import SHARD_BYTES, SHARD_SIZE


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunSettings:
    """How a run is cut up and driven.

    A shard holds at most `shard_size` images and `shard_bytes` bytes of them, a run at most `max_images`.
    More than `max_failure_rate` of failed images ends the run with exit code 3. No progress for
    `stall_minutes` ends it, too. A model that answers nothing for `hang_minutes` while it has work is ended
    as if it had died, so that a face it hangs on is found out; None is a third of `stall_minutes`. A signal
    ends the run once the shards in flight are done, or after `grace_seconds`, by default longer than an
    engine on two cores takes for its three shards. `answer_actors` 0 means one per GPU, or one where there is
    none; `gpus` is what a cluster will have that starts its GPU nodes on demand, None what it has now.
    Decoding an image and finding its faces may take `image_seconds` and `image_mib` of memory; else the image
    is `crashed`. None means as much as the largest image within the limits needs.
    `uri_column` names the column of a manifest that holds the images' addresses.
    """

    shard_size: Annotated[int, Field(ge=1)] = SHARD_SIZE
    shard_bytes: Annotated[int, Field(ge=1)] = SHARD_BYTES
    max_images: Annotated[int, Field(ge=1)] | None = None
    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    stall_minutes: Annotated[float, Field(gt=0)] = 30
    hang_minutes: Annotated[float, Field(gt=0)] | None = None
    grace_seconds: Annotated[float, Field(ge=0)] = 600
    answer_actors: Annotated[int, Field(ge=0)] = 0
    gpus: Annotated[int, Field(ge=0)] | None = None
    judge_actors: Annotated[int, Field(ge=1)] = 1
    image_seconds: Annotated[float, Field(gt=0)] = IMAGE_SECONDS
    image_mib: int | None = None
    uri_column: str = "image_uri"

    def __post_init__(self) -> None:
        if self.hang_minutes is not None and self.hang_minutes >= self.stall_minutes:
            raise ConfigurationError(
                f"run.hang_minutes is {self.hang_minutes:g}, but run.stall_minutes {self.stall_minutes:g}: "
                "the run would end before a model that hangs is found out; lower the one or raise the other"
            )

    @property
    def hang_seconds(self) -> float:
        """How long a model that has work may answer nothing."""
        return 60 * (self.stall_minutes / 3 if self.hang_minutes is None else self.hang_minutes)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScoreConfig(ScorerSettings):
    """The sections of the configuration file; each has an option of the same name for what is often set."""

    run: RunSettings = Field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        self.require_memory("run.image_mib", self.run.image_mib)
