"""The image of a request, in any of the three ways it may be given."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from serve.body import JSON, decoded, decoded_size, read, require_kind
from serve.invalid import told, wrong_in
from serve.limits import Held, chunks, image_too_large
from serve.problems import ProblemError, invalid, malformed
from serve.replies import SMALL_IMAGE
from serve.sources import Sources

MULTIPART = "multipart/form-data"
FIELD = "file"
"""Name of the image's part in a multipart body."""


class ImageRequest(BaseModel):
    """An image in JSON: its bytes in base64, or its address on S3."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": ["image"]}, {"required": ["uri"]}]},
    )

    image: str | None = Field(
        None, description="the file in base64", json_schema_extra={"contentEncoding": "base64"}
    )
    uri: str | None = Field(None, description="s3://bucket/key, below one of the service's prefixes")

    @model_validator(mode="after")
    def _has_one(self) -> "ImageRequest":
        if (self.image is None) == (self.uri is None):
            raise ValueError("give either `image` or `uri`")
        return self


REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        MULTIPART: {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "string", "contentMediaType": "application/octet-stream"}},
            }
        },
        JSON: {
            "schema": {"$ref": "#/components/schemas/ImageRequest"},
            "examples": {
                "base64": {"value": {"image": SMALL_IMAGE}},
                "uri": {"value": {"uri": "s3://uploads/2026/11/photo.jpg"}},
            },
        },
    },
}
"""OpenAPI's description of a body with an image."""


class Uploads:
    """Reads images of at most `max_bytes` from bodies of at most `max_body_bytes`, and from `sources`."""

    def __init__(self, sources: Sources, max_bytes: int, max_body_bytes: int) -> None:
        self._sources, self._max_bytes, self._max_body_bytes = sources, max_bytes, max_body_bytes

    async def read(self, request: Request, held: Held) -> bytes:
        """The image's file.

        Raises:
            ProblemError: 400, the body cannot be read; 413, it or the image is too large; 415, it is of
                another kind; 422, it does not hold one image; and as `Sources.read`.
        """
        kind = require_kind(request, MULTIPART, JSON)
        body = chunks(request, held, self._max_body_bytes)
        data = await (
            self._from_multipart(request, body) if kind == MULTIPART else self._from_json(body, held)
        )
        if len(data) > self._max_bytes:
            raise image_too_large(len(data), self._max_bytes)
        return data

    async def _from_multipart(self, request: Request, body: AsyncIterator[bytes]) -> bytes:
        parser = MultiPartParser(request.headers, body, max_files=1, max_fields=0)  # type: ignore[arg-type]
        parser.spool_max_size = self._max_body_bytes  # in memory: nothing of an image is written to a disk
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise malformed(f"the multipart body: {error.message}") from None
        except UnicodeError:  # of the charset that its Content-Type names
            raise malformed("the multipart body: its names cannot be read") from None
        file = form.get(FIELD)
        if not isinstance(file, UploadFile):
            raise invalid(f"the multipart body has no file named {FIELD!r}")
        try:
            return await file.read()
        finally:
            await file.close()

    async def _from_json(self, body: AsyncIterator[bytes], held: Held) -> bytes:
        content = b"".join([chunk async for chunk in body])
        asked = await asyncio.to_thread(read, content, ImageRequest, _refused)
        if asked.uri is not None:
            held.hold(self._max_bytes)
            data = await self._sources.read(asked.uri)
            held.release(self._max_bytes - len(data))
            return data
        image = asked.image or ""
        held.hold(decoded_size(len(image)))
        try:
            return await asyncio.to_thread(decoded, image)
        except ValueError:
            raise invalid("image is no base64") from None


def _refused(error: ValidationError) -> ProblemError:
    return invalid(told(wrong_in(error)))
