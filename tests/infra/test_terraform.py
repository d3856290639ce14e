"""The AWS module: made against moto, unchanged when made again, and each role may do what its calls need."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.moto_server.werkzeug_app import MotoRequestHandler
from moto.s3.responses import S3Response

from ffaa_core.bundle import Bundle
from ffaa_core.bundle.fetch import fetch
from ffaa_core.storage import open_store
from serve.problems import ProblemError
from serve.sources import Sources
from tests.fixtures.command import Ffaa
from tests.fixtures.s3 import S3Server, use
from tests.infra.iam import Grant, allowing, grants, requests
from tests.infra.terraform import MODULE, Terraform, initialised, require_terraform

OVERLAY = MODULE.parents[1] / "k8s" / "overlays" / "aws-gpu"
KEY = "arn:aws:kms:us-east-1:123456789012:key/of-the-images"
ROOT_MODULE = f"""
provider "aws" {{
  region            = "us-east-1"
  s3_use_path_style = true
}}

module "ffaa" {{
  source             = "./module"
  face_pictures_days = 30
  images             = {{ kms_key_arn = "{KEY}" }}
  cluster            = {{ oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/oidc.example/id/1" }}
}}

output "of" {{ value = module.ffaa }}
"""


def test_the_module_is_formatted_and_valid(tmp_path: Path) -> None:
    providers = require_terraform()
    shutil.copytree(MODULE, tmp_path / "module")
    terraform = initialised(tmp_path / "module", providers)
    terraform.run("fmt", "-check", "-diff", "-no-color")
    terraform.run("validate", "-no-color")


@pytest.fixture(scope="module")
def honest_inventory() -> Iterator[None]:
    """moto tells some fields of an inventory's configuration as it likes; here it tells what it was told."""
    with pytest.MonkeyPatch.context() as patch:
        told: dict[str, str] = {}
        take = S3Response._inventory_config_from_body

        def remember(response: S3Response) -> dict[str, Any]:
            told[response.bucket_name] = response.body
            return take(response)

        def tell(response: S3Response) -> tuple[int, dict[str, str], str]:
            return 200, {"Content-Type": "application/xml"}, told[response.bucket_name]

        patch.setattr(S3Response, "_inventory_config_from_body", remember)
        patch.setattr(S3Response, "get_bucket_inventory_configuration", tell)
        yield


@pytest.fixture(scope="module")
def applied(
    moto_server: S3Server, honest_inventory: None, tmp_path_factory: pytest.TempPathFactory
) -> Terraform:
    """The module, made in moto's account."""
    providers = require_terraform()
    root = tmp_path_factory.mktemp("terraform")
    shutil.copytree(MODULE, root / "module")
    (root / "main.tf").write_text(ROOT_MODULE)
    terraform = initialised(root, providers, **moto_server.environment())
    terraform.run("apply", "-auto-approve", "-input=false", "-no-color")
    return terraform


@pytest.fixture(scope="module")
def outputs(applied: Terraform) -> dict[str, Any]:
    return applied.outputs()["of"]


@pytest.mark.slow
def test_a_second_plan_is_empty(applied: Terraform) -> None:
    plan = applied.run("plan", "-detailed-exitcode", "-input=false", "-no-color", check=False)
    assert plan.returncode == 0, plan.stdout + plan.stderr


@pytest.mark.slow
def test_every_bucket_is_versioned_encrypted_private_and_tls_only(
    applied: Terraform, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto_server, monkeypatch)
    s3 = boto3.client("s3")
    buckets = [
        f"ffaa-{kind}-123456789012" for kind in ("bundles", "faces", "images", "inventory", "verdicts")
    ]
    assert set(buckets) <= {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for bucket in buckets:
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
        [encryption] = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        default = encryption["ApplyServerSideEncryptionByDefault"]
        is_under_a_key = bucket.split("-")[1] in ("faces", "images")
        assert default["SSEAlgorithm"] == ("aws:kms" if is_under_a_key else "AES256")
        assert (default.get("KMSMasterKeyID") == KEY) == ("images" in bucket)
        tls_only = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"][0]
        assert tls_only["Effect"] == "Deny"
        assert tls_only["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        assert any("AbortIncompleteMultipartUpload" in rule for rule in rules)
        assert any("NoncurrentVersionExpiration" in rule for rule in rules)
        kept = [rule["Expiration"]["Days"] for rule in rules if "Days" in rule.get("Expiration", {})]
        assert kept == {"faces": [30], "inventory": [14]}.get(bucket.split("-")[1], [])


@pytest.mark.slow
def test_roles_and_repository_are_those_of_the_aws_overlay(
    outputs: dict[str, Any], moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto_server, monkeypatch)
    values = next(yaml.safe_load_all((OVERLAY / "values.yaml").read_text()))["data"]
    assert outputs["values"].keys() < values.keys()
    annotated = {
        (account["metadata"]["name"], account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"])
        for account in yaml.safe_load_all((OVERLAY / "identity.yaml").read_text())
    }
    trusted = {(account, arn) for arn in outputs["role_arns"].values() for account in who_may_assume(arn)}
    assert annotated == trusted
    [image] = yaml.safe_load((OVERLAY / "kustomization.yaml").read_text())["images"]
    assert image["newName"].partition("/")[2] == outputs["image_repository"].partition("/")[2]


def who_may_assume(role_arn: str) -> list[str]:
    """Names of service accounts."""
    role = boto3.client("iam").get_role(RoleName=role_arn.rpartition("/")[2])["Role"]
    [statement] = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    condition = statement["Condition"]["StringEquals"]
    assert condition["oidc.example/id/1:aud"] == "sts.amazonaws.com"
    subjects = condition["oidc.example/id/1:sub"]
    return [subject.rpartition(":")[2] for subject in ([subjects] if isinstance(subjects, str) else subjects)]


Calls = list[tuple[str, str, int]]
"""Requests that moto has answered: method, target and status."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    answered: Calls = []
    monkeypatch.setattr(
        MotoRequestHandler,
        "log_request",
        lambda handler, code="-", size="-": answered.append((handler.command, handler.path, int(code))),
    )
    return answered


def used(role: str, calls: Calls) -> set[Grant]:
    """What of the role's policy these calls need; fails for one that it does not allow."""
    answered = list(calls)  # asking for the policy is one more
    policy = policy_of(role)
    found = set[Grant]()
    for call in answered:
        for needed in requests(*call, {"ffaa-images-123456789012": KEY}):
            by = allowing(policy, needed)
            assert by, f"{role} may not {needed}, which {call} needs"
            found |= by
    return found


def policy_of(role: str) -> dict[str, Any]:
    document = boto3.client("iam").get_role_policy(RoleName=f"ffaa-{role}", PolicyName="storage")
    return document["PolicyDocument"]


@pytest.fixture
def account(
    applied: Terraform,
    outputs: dict[str, Any],
    demo_bundle: Bundle,
    make_images: Callable[[Path, int], Path],
    moto_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> dict[str, str]:
    """The values of an overlay, with a bundle and images where they say, and no bundle in the cache."""
    use(moto_server, monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    values = outputs["values"]
    s3 = boto3.client("s3")
    for bucket in s3.list_buckets()["Buckets"]:
        s3.delete_bucket_policy(Bucket=bucket["Name"])  # moto speaks no TLS, without which it now refuses
    for source, target in (
        (demo_bundle.path, values["FFAA_BUNDLE"]),
        (make_images(tmp_path / "images", 3), values["FFAA_INPUT"]),
    ):
        for path in source.rglob("*.*"):
            open_store(target).write(path.relative_to(source).as_posix(), path)
    return values


@pytest.mark.slow
def test_the_scan_may_do_what_it_does_and_nothing_else(
    account: dict[str, str],
    outputs: dict[str, Any],
    scripted: Ffaa,
    moto_server: S3Server,
    calls: Calls,
    tmp_path: Path,
) -> None:
    write_report(outputs["inventory"], account["FFAA_INPUT"], [*KEYS, "deleted-since.png"])
    calls.clear()
    ffaa = scripted.with_environment(
        **moto_server.environment(), XDG_CACHE_HOME=str(tmp_path / "other-cache")
    )
    options = ("--faces", "whole_image", "--shard-size", "2", "--bundle", account["FFAA_BUNDLE"])

    fetched = ffaa("bundle", "fetch", account["FFAA_BUNDLE"])
    first = ffaa("score", account["FFAA_INPUT"], account["FFAA_OUTPUT"], *options, "--max-images", "1")
    second = ffaa("score", outputs["inventory"], account["FFAA_OUTPUT"], *options, "--run", "tonight")
    again = ffaa("score", outputs["inventory"], account["FFAA_OUTPUT"], *options, "--run", "tonight")

    assert fetched.returncode == 0, fetched.stderr
    assert first.returncode == 0, first.stderr
    assert second.returncode == again.returncode == 3, second.stderr  # one of three is gone
    shown = ffaa("table", "show", account["FFAA_OUTPUT"], "--status", "gone")
    assert "deleted-since.png" in shown.stdout
    assert used("nightly", calls) == grants(policy_of("nightly"))


@pytest.mark.slow
def test_the_service_may_do_what_it_does_and_nothing_else(
    account: dict[str, str], calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.clear()
    fetch(account["FFAA_BUNDLE"])
    sources = Sources([account["FFAA_INPUT"]], 10**6)
    assert sources._read(f"{account['FFAA_INPUT']}{KEYS[0]}")
    with pytest.raises(ProblemError) as missing:
        sources._read(f"{account['FFAA_INPUT']}nothing.png")
    assert missing.value.status == 404
    assert used("service", calls) == grants(policy_of("service"))


@pytest.mark.slow
def test_a_call_outside_the_prefixes_is_found(account: dict[str, str], calls: Calls) -> None:
    calls.clear()
    open_store(account["FFAA_OUTPUT"]).delete("ffaa-table.json")
    with pytest.raises(AssertionError, match="s3:DeleteObject"):
        used("nightly", calls)


KEYS = [f"{number:04}.png" for number in range(3)]


def write_report(inventory: str, source: str, keys: list[str]) -> None:
    """A report as S3 writes it there, of objects below `source`."""
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    destination = inventory.removeprefix("s3://").partition("/")
    lines = io.StringIO()
    csv.writer(lines).writerows([bucket, prefix + key, "100", f"etag-{key}"] for key in keys)
    store = open_store(inventory)
    store.write("data/1.csv", lines.getvalue().encode())
    manifest = {
        "sourceBucket": bucket,
        "destinationBucket": f"arn:aws:s3:::{destination[0]}",
        "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size, ETag",
        "files": [{"key": f"{destination[2]}data/1.csv", "size": len(lines.getvalue())}],
    }
    store.write("2026-11-20T01-00Z/manifest.json", json.dumps(manifest).encode())
    store.write("2026-11-20T01-00Z/manifest.checksum", b"")
    store.write("hive/dt=2026-11-20-01-00/symlink.txt", b"")
