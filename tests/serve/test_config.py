"""Settings of the service."""

import pytest

from ffaa_core.errors import ConfigurationError
from ffaa_core.settings import from_mapping
from serve.config import ServeConfig


def test_the_longest_body_holds_the_largest_image_in_base64() -> None:
    config = from_mapping(ServeConfig, {"decode": {"max_bytes": 999}})
    assert config.max_body_bytes > len('{"image": ""}') + 4 * 999 / 3


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"service": {"max_request": 1}}, "there is no setting service.max_request"),
        ({"servce": {}}, "there is no setting servce"),
        ({"service": {"max_requests": 0}}, "service.max_requests"),
        ({"service": {"deadline_seconds": 0}}, "service.deadline_seconds"),
        ({"service": {"uri_prefixes": ["/data"]}}, "s3://bucket/prefix"),
        ({"service": {"uri_prefixes": ["file:///data"]}}, "s3://bucket/prefix"),
        ({"service": {"image_mib": 1}}, "service.image_mib"),
        ({"service": {"max_body_mib": 149}, "decode": {"max_bytes": 64 * 2**20}}, "service.max_body_mib"),
    ],
)
def test_a_setting_that_cannot_be_is_named(args: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        from_mapping(ServeConfig, args)


def test_prefixes_are_folders() -> None:
    config = from_mapping(ServeConfig, {"service": {"uri_prefixes": ["s3://photos/2026", "s3://more"]}})
    assert config.service.uri_prefixes == ("s3://photos/2026/", "s3://more/")
