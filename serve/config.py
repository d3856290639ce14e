"""Everything the service can be told: the `args` of its application in a Ray Serve configuration file."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from ffaa_core.errors import ConfigurationError
from ffaa_core.scorer_settings import ScorerSettings
from ffaa_core.settings import STRICT
from serve.sources import canonical_prefix


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ServiceSettings:
    """How requests are admitted, bounded and forgotten.

    A gateway works on at most `max_requests` requests at once, whose bodies, and the images in them once they
    are decoded from base64, take at most `max_body_mib` in all; of these at most `max_waiting` may wait for a
    place at an engine, and as many for MIDS. What exceeds a bound is refused at once, to be tried again after
    `retry_after_seconds`. A request is given up after `deadline_seconds`, or sooner if its client asks for
    that.
    Decoding an image and finding its faces may take `image_seconds` and `image_mib` of memory, as in a run.
    `uri_prefixes` are the S3 prefixes whose images may be scored by address. `keys_file` holds the digests of
    the keys that are let in, beside those in `FFAA_API_KEYS`; `anonymous` lets everybody in.
    An image that was scored is kept for `memory_seconds` for conversations about it, and less long where
    there are more than `memory_images`, or where they take more than `memory_mib`.
    A new configuration that is not ready after `rollout_seconds` is given up, and the old one served on.
    """

    max_requests: Annotated[int, Field(ge=1)] = 64
    max_waiting: Annotated[int, Field(ge=1)] = 32
    max_body_mib: Annotated[int, Field(ge=1)] = 1024
    retry_after_seconds: Annotated[int, Field(ge=1)] = 2
    deadline_seconds: Annotated[float, Field(gt=0)] = 60
    image_seconds: Annotated[float, Field(gt=0)] = 30
    image_mib: int | None = None
    uri_prefixes: tuple[Annotated[str, AfterValidator(canonical_prefix)], ...] = ()
    keys_file: str | None = None
    anonymous: bool = False
    memory_seconds: Annotated[float, Field(gt=0)] = 900
    memory_images: Annotated[int, Field(ge=1)] = 1000
    memory_mib: Annotated[int, Field(ge=1)] = 256
    rollout_seconds: Annotated[float, Field(gt=0)] = 1800


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ServeConfig(ScorerSettings):
    """The sections of the application's `args`; all but `service` are those of `ffaa score --config`."""

    service: ServiceSettings = Field(default_factory=ServiceSettings)

    def __post_init__(self) -> None:
        self.require_memory("service.image_mib", self.service.image_mib)
        if self.service.max_body_mib * 2**20 < self.max_body_bytes + self.decode.max_bytes:
            raise ConfigurationError(
                f"service.max_body_mib is {self.service.max_body_mib}, less than one request of "
                f"decode.max_bytes, {self.decode.max_bytes}, may take: raise the one or lower the other"
            )

    @property
    def max_body_bytes(self) -> int:
        """The longest body of a request: an image of `decode.max_bytes` in base64, and what stands around."""
        return self.decode.max_bytes * 4 // 3 + BESIDE_THE_IMAGE


BESIDE_THE_IMAGE = 64 * 1024
"""Bytes that a body may have besides its image."""
