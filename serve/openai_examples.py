"""What the documentation of `/v1/chat/completions` shows: DFA-GPT's four tasks, and a reply."""

import json
from typing import Any

from serve.openai_types import MODEL, OWN
from serve.replies import EXAMPLE, FINGERPRINT_HEADER, SMALL_IMAGE

TASKS = {
    "detection": "Is this face real or fake? Begin your answer with that word.",
    "classification": "If this face is forged, how: identity exchange, facial attribute manipulation or "
    "entire face synthesis?",
    "artifacts": "Describe each artifact you see in this face: where it is, and what it looks like.",
    "conversation": "Could a photograph in bad light look like this, too?",
}
"""One question for each: is it forged, of which type is it, by what does one see it, and anything else."""

IMAGE_ID: str = EXAMPLE["image_id"]
DATA_URL = f"data:image/gif;base64,{SMALL_IMAGE}"


def chat(question: str, url: str = OWN + IMAGE_ID, **more: Any) -> dict[str, Any]:
    """The request that asks one question about the image at `url`."""
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **more}


COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-5b2f6c0e9f7b4f0f8d3f0a6f0f6b1c55",
    "object": "chat.completion",
    "created": 1796000000,
    "model": MODEL,
    "system_fingerprint": EXAMPLE["fingerprint"],
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Fake. The edge of the face is blurred where it meets the hair.",
                "refusal": None,
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 803,
        "completion_tokens": 17,
        "total_tokens": 820,
        "prompt_tokens_details": {"cached_tokens": 608},
    },
    "ffaa": {
        "image_id": IMAGE_ID,
        "face": 0,
        "verdict": "fake",
        "forgery_type": "identity_exchange",
        "forgery_score": 0.93,
        "warning": None,
    },
}
"""A reply."""

MODEL_PARAMETER: dict[str, Any] = {
    "name": "model",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "example": MODEL,
}
PREFER_PARAMETER: dict[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "description": "`wait=SECONDS` to be answered within so long (RFC 7240)",
}
"""Parameters of requests. FastAPI, told of them, would document a 422 that no request is answered with."""

REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/ChatRequest"},
            "examples": {name: {"summary": name, "value": chat(question)} for name, question in TASKS.items()}
            | {
                "data_url": {
                    "summary": "an image that was not scored before",
                    "value": chat(TASKS["detection"], DATA_URL),
                },
                "stream": {"summary": "piece by piece", "value": chat(TASKS["artifacts"], stream=True)},
                "further": {
                    "summary": "a further question",
                    "value": {
                        "model": MODEL,
                        "messages": [
                            {"role": "user", "content": f"{OWN}{IMAGE_ID} {TASKS['detection']}"},
                            {"role": "assistant", "content": "Fake. The edge of the face is blurred."},
                            {"role": "user", "content": TASKS["conversation"]},
                        ],
                    },
                },
            },
        }
    },
}
"""OpenAPI's description of a request."""


def _stream() -> str:
    head = {name: COMPLETION[name] for name in ("id", "created", "model", "system_fingerprint")} | {
        "object": "chat.completion.chunk"
    }
    choice = {"index": 0, "delta": {"content": "Fake."}, "logprobs": None, "finish_reason": None}
    return f"data: {json.dumps(head | {'choices': [choice]})}\n\ndata: [DONE]\n\n"


_TOLD = [{"$ref": f"#/components/schemas/{name}"} for name in ("Chunk", "OpenAIErrorReply")]

EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "type": "string",
            "anyOf": [
                {"contentMediaType": "application/json", "contentSchema": {"anyOf": _TOLD}},
                {"const": "[DONE]"},
            ],
        }
    },
}
"""An event of a stream, as OpenAPI 3.2 and FastAPI describe events."""

COMPLETED: dict[str, Any] = {
    "description": "The answer: whole, or with `stream` as events",
    "content": {
        "application/json": {"example": COMPLETION},
        "text/event-stream": {"itemSchema": EVENT, "example": _stream()},
    },
    "headers": {FINGERPRINT_HEADER: {"schema": {"type": "string"}, "description": "of models and settings"}},
}
"""OpenAPI's description of a reply."""
