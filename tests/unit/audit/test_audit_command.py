"""`echomesh audit`: anchors as lines, and the report's controls."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from echomesh import AuditAnchor, AuditEntry
from services.auth.actions import Action as Auth
from services.cli.audit import Checked, anchor_line, read_anchor, verdict
from services.cli.audit_chain import ChainCheck
from services.cli.audit_report import CONTROLS, NOTICE, Evidence, lines_of
from services.memory.actions import Action as Memory
from services.runtime.audit import ANCHOR_EVENT

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def entry(action: str, outcome: str = "ok") -> AuditEntry:
    return AuditEntry(
        "auth", "t", 1, NOON, "user:u", action, "", outcome, "{}", bytes(32), bytes(32)
    )


def test_an_anchor_survives_being_written_and_read() -> None:
    anchor = AuditAnchor("auth", "t", 7, bytes(range(32)))
    assert read_anchor(anchor_line(anchor)) == anchor


def test_a_line_of_a_services_log_is_an_anchor() -> None:
    """So whoever ships logs to another machine has anchors there without doing anything."""
    line = {"event": ANCHOR_EVENT, "level": "info", "log": "auth", "tenant_id": "t", "seq": 7}
    found = read_anchor(json.dumps({**line, "hash": "00" * 32}))
    assert found == AuditAnchor("auth", "t", 7, bytes(32))


def test_other_lines_are_no_anchors() -> None:
    lines = ("", "text", "{}", "[1]", '{"log":"auth","tenant_id":"t","seq":1,"hash":"zz"}', "3")
    assert [read_anchor(line) for line in lines] == [None] * len(lines)


def test_every_action_is_evidence_for_some_criterion() -> None:
    """An action that nobody mapped would be missing in the report."""
    shown = {action for control in CONTROLS for action in control.actions}
    assert shown == {*Auth, *Memory}


def test_the_report_counts_refusals_apart_and_certifies_nothing() -> None:
    evidence = Evidence()
    for outcome in ("ok", "ok", "refused"):
        evidence.take(entry(Auth.LOGIN, outcome))
    text = "\n".join(lines_of(evidence, ["auth: whole"]))
    assert NOTICE in text
    assert "    auth: whole" in text
    assert "| session.login | 3 | 2026-11-21T12:00:00Z | 2026-11-21T12:00:00Z |" in text
    assert "| session.login, refused | 1 |" in text
    controls = {each["criterion"]: each for each in evidence.as_json()["controls"]}
    assert controls["CC6.6"]["evidence"]["session.login"]["entries"] == 1


def test_the_verdict_names_the_entry_and_a_flood_of_problems_is_cut() -> None:
    check = ChainCheck("auth", [])
    for _ in range(30):
        check.take(entry("a"))
    checked = Checked({"auth": check})
    lines = list(verdict(checked))
    assert not checked.whole
    assert lines[0].startswith("auth: 1 entries, ")
    assert lines[1].startswith("  entry 1: ")
    assert len(lines) == 22
    assert lines[-1].startswith("  and ")
