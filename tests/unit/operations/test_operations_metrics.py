"""Metrics, alerts and the dashboard say the same names, and each alert has its page."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.metric_names import ROOT, documented, made, read_by, readable

FILES = ROOT / "charts" / "echomesh" / "files"
RUNBOOKS = ROOT / "docs" / "runbooks"
CASES = sorted((ROOT / "tests" / "rules").glob("*_test.yaml"))
# What every page of an alert answers.
HEADINGS = ("What it means", "Look", "Do", "Over when")


def rules() -> list[dict[str, Any]]:
    """Every rule of the alert file."""
    groups = yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def queries() -> list[str]:
    """Every query of the dashboard, its variables put in."""
    dashboard = json.loads((FILES / "dashboard.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [query.replace("$__rate_interval", "5m") for query in found]


def test_every_metric_is_documented_with_its_type_and_labels_and_none_is_gone() -> None:
    assert made() - documented() == set()
    assert documented() - made() == set()
    assert len(made()) > 30


def test_the_names_in_a_query_are_found_whatever_stands_around_them() -> None:
    query = (
        'sum by (model) (rate(a_total{code=~"b|c", d="e"}[5m])) / on (job, instance) group_left (x)'
        " max_over_time(f:g:h[1h]) > 14.4 * 0.001 and time() - i_seconds or vector(0)"
    )
    assert read_by(query) == {"a_total", "f:g:h", "i_seconds"}


def test_rules_and_dashboard_read_only_metrics_that_there_are() -> None:
    known = readable() | recorded()
    for query in (*(rule["expr"] for rule in rules()), *queries()):
        assert read_by(query), query
        assert read_by(query) - known == set(), query


def test_every_alert_has_a_page_that_answers_what_to_do_and_every_page_an_alert() -> None:
    pages = {alert["annotations"]["runbook"] for alert in alerts()}
    assert pages == {str(page.relative_to(ROOT)) for page in RUNBOOKS.glob("*.md")}
    for alert in alerts():
        text = (ROOT / alert["annotations"]["runbook"]).read_text()
        assert alert["alert"] in text.splitlines()[0]
        assert [h for h in HEADINGS if f"\n## {h}\n" not in text] == []


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tests = [test for path in CASES for test in yaml.safe_load(path.read_text())["tests"]]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    assert fires == {alert["alert"] for alert in alerts()}
    # promtool compares all alerts of a case: each names the instance that is well beside the other.
    assert len(cases) > len(fires)


def promtool(*arguments: str) -> None:
    """Run promtool, or skip with a reason where there is none."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("check", "rules", str(FILES / "alerts.yaml"))
    promtool("test", "rules", *map(str, CASES))


def test_every_query_of_the_dashboard_is_one_that_prometheus_takes(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": query} for n, query in enumerate(queries())]
    assert len(rules) > 20
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(file))
