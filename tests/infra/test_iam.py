"""The evaluator of policies refuses what AWS refuses."""

import pytest

from tests.infra.iam import Grant, Request, allowing, grants, requests

OBJECTS = "arn:aws:s3:::verdicts/nightly/*"
KEY = "arn:aws:kms:us-east-1:123456789012:key/ours"
POLICY = {
    "Statement": [
        {"Sid": "Keep", "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": OBJECTS},
        {
            "Sid": "List",
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": "arn:aws:s3:::verdicts",
            "Condition": {"StringLike": {"s3:prefix": "nightly/*"}},
        },
        {
            "Sid": "Decrypt",
            "Effect": "Allow",
            "Action": "kms:Decrypt",
            "Resource": KEY,
            "Condition": {"StringLike": {"kms:ViaService": "s3.*.amazonaws.com"}},
        },
    ]
}


@pytest.mark.parametrize(
    ("method", "target", "status", "by"),
    [
        ("GET", "/verdicts/nightly/runs/1/plan.json?x-id=GetObject", 200, [{"Keep"}]),
        ("HEAD", "/verdicts/nightly/ffaa-table.json", 404, [{"Keep"}, {"List"}]),
        ("PUT", "/verdicts/nightly/a%5B1%5D.json", 200, [{"Keep"}]),
        ("PUT", "/verdicts/weekly/ffaa-table.json", 200, [set()]),
        ("DELETE", "/verdicts/nightly/ffaa-table.json", 204, [set()]),
        ("GET", "/verdicts?list-type=2&prefix=nightly%2Fruns%2F", 200, [{"List"}]),
        ("GET", "/verdicts?list-type=2&prefix=nightly", 200, [set()]),
        ("GET", "/verdicts?list-type=2", 200, [set()]),
        ("GET", "/images/nightly/a.jpg", 200, [set()]),
    ],
)
def test_a_request_is_allowed_by_the_statement_that_names_it(
    method: str, target: str, status: int, by: list[set[str]]
) -> None:
    found = [{grant.sid for grant in allowing(POLICY, needed)} for needed in requests(method, target, status)]
    assert found == by


@pytest.mark.parametrize(
    ("method", "status", "key", "by"),
    [
        ("GET", 200, KEY, [{"Keep"}, {"Decrypt"}]),
        ("GET", 404, KEY, [{"Keep"}, {"List"}]),
        ("GET", 200, f"{KEY}-not", [{"Keep"}, set()]),
        ("PUT", 200, KEY, [{"Keep"}, set()]),
    ],
)
def test_an_object_under_a_customers_key_needs_the_key_too(
    method: str, status: int, key: str, by: list[set[str]]
) -> None:
    needed = requests(method, "/verdicts/nightly/a.jpg", status, {"verdicts": key})
    assert [{grant.sid for grant in allowing(POLICY, each)} for each in needed] == by


def test_a_key_is_for_the_service_that_its_statement_names() -> None:
    assert not allowing(POLICY, Request("kms:Decrypt", KEY))
    assert not allowing(POLICY, Request("kms:Decrypt", KEY, via="ebs.us-east-1.amazonaws.com"))


def test_each_action_on_each_resource_is_a_grant_of_its_own() -> None:
    assert grants(POLICY) == {
        Grant("Keep", "s3:GetObject", OBJECTS),
        Grant("Keep", "s3:PutObject", OBJECTS),
        Grant("List", "s3:ListBucket", "arn:aws:s3:::verdicts"),
        Grant("Decrypt", "kms:Decrypt", KEY),
    }


@pytest.mark.parametrize(
    "target", ["/", "/verdicts", "/verdicts/nightly/a?uploads", "/verdicts/nightly/a?acl"]
)
def test_a_request_of_a_kind_that_the_store_is_not_known_to_make_is_named(target: str) -> None:
    with pytest.raises(ValueError, match="another kind"):
        requests("GET", target, 200)


@pytest.mark.parametrize(
    "changed",
    [
        {"Effect": "Deny"},
        {"Action": "s3:*"},
        {"Condition": {"StringNotLike": {"s3:prefix": "x"}}},
        {"NotResource": "arn:aws:s3:::other"},
    ],
)
def test_a_policy_that_says_more_than_is_understood_is_no_policy(changed: dict[str, object]) -> None:
    policy = {"Statement": [POLICY["Statement"][0] | changed]}
    with pytest.raises(ValueError, match="not understood"):
        allowing(policy, Request("s3:GetObject", "arn:aws:s3:::verdicts/nightly/a"))
