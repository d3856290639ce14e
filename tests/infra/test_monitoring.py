"""Alerts and dashboards work in Prometheus, and speak of what is documented, which is what is scraped."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ffaa_core.verdict import Status
from ray_jobs.score.config import RunSettings
from tests.ray_jobs.score.test_metrics import DOCUMENTED as OF_THE_BATCH
from tests.serve.test_metrics import DOCUMENTED as OF_THE_SERVICE

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "infra" / "monitoring"
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()
METRIC = re.compile(r"\bray_(\w+?)(?:_bucket)?\b")
ALERT = re.compile(r"^\| `(FFAA\w+)` \|", re.MULTILINE)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panel_expressions() -> list[str]:
    dashboards = [json.loads(file.read_text()) for file in sorted(MONITORING.glob("*.json"))]
    panels = [panel for dashboard in dashboards for panel in dashboard["panels"]]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def promtool(*arguments: str, folder: Path = MONITORING) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        absent = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        absent("there is no promtool: apt-get install prometheus")
    return subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_rules_are_valid_and_do_what_their_own_tests_say() -> None:
    for arguments in (("check", "rules", "rules.yaml"), ("test", "rules", "rules-test.yaml")):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_is_never_true_fails_its_test(tmp_path: Path) -> None:
    broken = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    for group in broken["groups"]:
        for rule in group["rules"]:
            rule["expr"] = "vector(1) > 2"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(broken))
    shutil.copy(MONITORING / "rules-test.yaml", tmp_path)
    done = promtool("test", "rules", "rules-test.yaml", folder=tmp_path)
    assert done.returncode == 1
    failed = set(re.findall(r"alertname: (\w+)", done.stdout + done.stderr))
    assert failed == {rule["alert"] for rule in rules()}


def test_every_metric_in_a_rule_or_panel_is_documented() -> None:
    used = set(METRIC.findall("\n".join([*(rule["expr"] for rule in rules()), *panel_expressions()])))
    assert used
    assert used <= {*OF_THE_BATCH.findall(DOCUMENT), *OF_THE_SERVICE.findall(DOCUMENT)}


def test_every_alert_is_documented() -> None:
    assert [rule["alert"] for rule in rules()] == ALERT.findall(DOCUMENT)


def test_a_standstill_is_told_before_the_command_ends_itself_for_it() -> None:
    [rule] = [rule for rule in rules() if rule["alert"] == "FFAANoProgress"]
    looks_back = {int(minutes) for minutes in re.findall(r"(?:\[|offset )(\d+)m\b", rule["expr"])}
    assert max(looks_back) + int(rule["for"].removesuffix("m")) < RunSettings().stall_minutes


@pytest.mark.parametrize(("ci", "ends"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_promtool_tests_are_skipped_but_where_a_change_must_pass(
    ci: str, ends: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ends, match="there is no promtool"):
        promtool("check", "rules", "rules.yaml")


def test_failures_are_the_statuses_that_count_as_such() -> None:
    failed = {status.value for status in Status if status.failed}
    sources = [*(rule["expr"] for rule in rules()), *panel_expressions()]
    found = [set(each.split("|")) for text in sources for each in re.findall(r'status=~"([^"]+)"', text)]
    assert found == [failed, failed]


def test_every_panel_of_the_dashboard_is_an_expression_that_prometheus_reads(tmp_path: Path) -> None:
    recorded = [
        {"record": f"panel:{number}", "expr": expression}
        for number, expression in enumerate(panel_expressions())
    ]
    groups = {"groups": [{"name": "panels", "rules": recorded}]}
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump(groups))
    done = promtool("check", "rules", "panels.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
