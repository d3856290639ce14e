"""Requests and replies of the gateway, its models being stand-ins."""

from serve.replies import ScoreReply
from tests.serve.stand_ins import FINGERPRINT, Service


async def test_a_multipart_file_is_scored(service: Service, picture: bytes) -> None:
    reply = await service.client.post("/v1/score", files={"file": picture})
    assert reply.status_code == 200, reply.text
    assert reply.headers["FFAA-Fingerprint"] == FINGERPRINT
    row = reply.json()
    assert ScoreReply.model_validate(row).verdict == "real"
    assert row["status"] == "scored"
    assert row["warning"] == "a warning"
