"""Just enough of IAM to tell which statement of a policy allows a request to S3, or its use of a key."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Policy = dict[str, Any]

OF_KMS = {"GET": "kms:Decrypt", "PUT": "kms:GenerateDataKey"}


@dataclass(frozen=True)
class Request:
    """An action on a bucket, object or key; `prefix` is that of a listing, `via` the service with the key."""

    action: str
    resource: str
    prefix: str | None = None
    via: str | None = None


@dataclass(frozen=True)
class Grant:
    """One action on one resource, by the `Sid` of its statement."""

    sid: str
    action: str
    resource: str


def grants(policy: Policy) -> set[Grant]:
    """Everything that a policy allows, one by one."""
    return {
        Grant(statement["Sid"], action, resource)
        for statement in policy["Statement"]
        for action in _as_list(statement["Action"])
        for resource in _as_list(statement["Resource"])
    }


def allowing(policy: Policy, request: Request) -> set[Grant]:
    """What of the policy allows the request: nothing where it is denied.

    Raises:
        ValueError: the policy says what is not understood here.
    """
    return {
        grant
        for statement in policy["Statement"]
        for grant in grants({"Statement": [statement]})
        if _holds(statement, request)
        and grant.action == request.action
        and _matches(grant.resource, request.resource)
    }


def requests(
    method: str, target: str, status: int, keys: Mapping[str, str] = MappingProxyType({})
) -> list[Request]:
    """What a request to S3, with the bucket in its path, needs to be answered like this.

    A missing object is told as such to those only who may list it; `s3:prefix` is then its key. S3 takes a
    customer's key with the rights of whoever asks for the object.

    Args:
        keys: ARNs of the KMS keys that encrypt buckets, by bucket.

    Raises:
        ValueError: it is of a kind that the store is not known to make.
    """
    url = urlsplit(target)
    bucket, _, key = unquote(url.path).removeprefix("/").partition("/")
    query = parse_qs(url.query, keep_blank_values=True)
    arn = f"arn:aws:s3:::{bucket}"
    if method == "GET" and not key and "list-type" in query:
        return [Request("s3:ListBucket", arn, query.get("prefix", [""])[0])]
    action = {
        "GET": "s3:GetObject",
        "HEAD": "s3:GetObject",
        "PUT": "s3:PutObject",
        "DELETE": "s3:DeleteObject",
    }
    if not key or query.keys() - {"x-id"} or method not in action:
        raise ValueError(f"{method} {target} is a request of another kind: what does it need?")
    needed = [Request(action[method], f"{arn}/{key}")]
    if status == 404:
        needed.append(Request("s3:ListBucket", arn, key))
    elif bucket in keys and method in OF_KMS:
        needed.append(Request(OF_KMS[method], keys[bucket], via="s3.us-east-1.amazonaws.com"))
    return needed


def _holds(statement: Policy, request: Request) -> bool:
    unknown = statement.keys() - {"Sid", "Effect", "Action", "Resource", "Condition"}
    condition = statement.get("Condition", {})
    if (
        unknown
        or statement["Effect"] != "Allow"
        or any("*" in action for action in _as_list(statement["Action"]))
    ):
        raise ValueError(f"not understood: {statement}")
    if not condition:
        return True
    context = {"s3:prefix": request.prefix, "kms:ViaService": request.via}
    if condition.keys() != {"StringLike"} or not condition["StringLike"].keys() <= context.keys():
        raise ValueError(f"not understood: {condition}")
    return all(
        (value := context[name]) is not None
        and any(_matches(pattern, value) for pattern in _as_list(patterns))
        for name, patterns in condition["StringLike"].items()
    )


def _matches(pattern: str, text: str) -> bool:
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
