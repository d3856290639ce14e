"""What schemathesis does besides. Of each three conversations that the schema allows two are about a real
image, that of the data URL in the file `image`, and one of them is streamed. Each reply is a line of the file
`replies`.
"""

import json
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis import Case, HookContext, Response

IMAGE = {"type": "image_url", "image_url": {"url": Path("image").read_text()}}
MESSAGES = [{"role": "user", "content": [IMAGE, {"type": "text", "text": "Why?"}]}]
ABOUT_IT = {"model": "ffaa", "messages": MESSAGES}
overrides = cycle([{}, ABOUT_IT, ABOUT_IT | {"stream": True}])


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: Mapping[str, Any]) -> None:
    """Give requests messages that come to a conversation, whatever their other fields say."""
    is_allowed = case.meta is not None and case.meta.generation.mode.is_positive
    if is_allowed and isinstance(case.body, dict) and "messages" in case.body:
        case.body = case.body | next(overrides)


@schemathesis.hook
def after_call(context: HookContext, case: Case, response: Response) -> None:
    """Write down how the request was answered."""
    kind = (response.headers.get("content-type") or [""])[0].partition(";")[0]
    with open("replies", "a") as file:
        print(json.dumps([f"{case.method} {case.path}", response.status_code, kind]), file=file)
