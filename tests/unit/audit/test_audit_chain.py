"""The chain of the audit log: whatever is done to entries afterwards, the check tells."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echomesh import AuditAnchor, AuditEntry
from services.cli.audit_chain import FIRST_PREVIOUS, ChainCheck, entry_hash

START = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
TEXT = st.text(max_size=12)
# What one entry tells: actor, action, target, details.
EVENTS = st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT), min_size=1, max_size=12)
FIELDS = st.sampled_from(["actor", "action", "target", "outcome", "details_json", "time"])


def sealed(entry: AuditEntry) -> AuditEntry:
    """The entry with the hash it must have."""
    return replace(entry, hash=entry_hash(entry))


def chained(entries: list[AuditEntry]) -> list[AuditEntry]:
    """The entries numbered and chained anew, as somebody with the owner's rights could."""
    previous, made = FIRST_PREVIOUS, []
    for seq, entry in enumerate(entries, 1):
        made.append(sealed(replace(entry, seq=seq, previous_hash=previous)))
        previous = made[-1].hash
    return made


def chain(events: list[tuple[str, str, str, str]]) -> list[AuditEntry]:
    """A chain that is whole."""
    return chained(
        [
            AuditEntry(
                log="auth",
                tenant_id="t",
                seq=0,
                time=START + timedelta(microseconds=number),
                actor=actor,
                action=action,
                target=target,
                outcome="ok",
                details_json=details,
                previous_hash=b"",
                hash=b"",
            )
            for number, (actor, action, target, details) in enumerate(events)
        ]
    )


def anchor_of(entry: AuditEntry) -> AuditAnchor:
    return AuditAnchor(entry.log, entry.tenant_id, entry.seq, entry.hash)


def checked(entries: list[AuditEntry], anchors: list[AuditAnchor] | None = None) -> ChainCheck:
    """The check of these entries, to the end."""
    check = ChainCheck("auth", anchors or [])
    for entry in entries:
        check.take(entry)
    check.end()
    return check


def edited(entry: AuditEntry, field: str) -> AuditEntry:
    """The entry with one field another."""
    if field == "time":
        return replace(entry, time=entry.time + timedelta(microseconds=1))
    if field == "outcome":
        return replace(entry, outcome="refused")
    return replace(entry, **{field: getattr(entry, field) + "x"})


@given(EVENTS)
def test_a_chain_that_nobody_touched_is_whole(events: list[tuple[str, str, str, str]]) -> None:
    entries = chain(events)
    check = checked(entries, [anchor_of(entry) for entry in entries])
    assert check.problems == []
    assert (check.seq, check.anchors_held) == (len(entries), len(entries))


@given(EVENTS, st.data(), FIELDS)
def test_an_edited_entry_is_seen_in_whatever_field(
    events: list[tuple[str, str, str, str]], data: st.DataObject, field: str
) -> None:
    entries = chain(events)
    place = data.draw(st.integers(0, len(entries) - 1))
    entries[place] = edited(entries[place], field)
    assert [problem.seq for problem in checked(entries).problems] == [place + 1]


@given(EVENTS, st.data(), FIELDS)
def test_an_edited_entry_with_a_hash_that_fits_breaks_the_next_or_an_anchor(
    events: list[tuple[str, str, str, str]], data: st.DataObject, field: str
) -> None:
    """The newest entry has none after it: there it takes an anchor."""
    entries = chain(events)
    anchors = [anchor_of(entries[-1])]
    place = data.draw(st.integers(0, len(entries) - 1))
    entries[place] = sealed(edited(entries[place], field))
    found = {problem.seq for problem in checked(entries, anchors).problems}
    assert found == {min(place + 2, len(entries))}


@given(EVENTS, st.data())
def test_a_deleted_entry_is_seen(
    events: list[tuple[str, str, str, str]], data: st.DataObject
) -> None:
    entries = chain([*events, ("a", "b", "c", "d")])
    del entries[data.draw(st.integers(0, len(entries) - 2))]
    assert checked(entries).problems


@given(EVENTS, st.data())
def test_entries_in_another_order_are_seen(
    events: list[tuple[str, str, str, str]], data: st.DataObject
) -> None:
    """Even with their numbers swapped too, so that these are in order."""
    entries = chain([*events, ("a", "b", "c", "d")])
    first = data.draw(st.integers(0, len(entries) - 2))
    second = data.draw(st.integers(first + 1, len(entries) - 1))
    entries[first], entries[second] = entries[second], entries[first]
    assert checked(entries).problems
    renumbered = [replace(entry, seq=seq) for seq, entry in enumerate(entries, 1)]
    assert checked(renumbered).problems


@given(EVENTS, st.data())
def test_a_cut_off_end_is_seen_by_an_anchor_alone(
    events: list[tuple[str, str, str, str]], data: st.DataObject
) -> None:
    entries = chain([*events, ("a", "b", "c", "d")])
    anchors = [anchor_of(entries[-1])]
    kept = entries[: data.draw(st.integers(0, len(entries) - 1))]
    assert checked(kept).problems == []
    assert [p.seq for p in checked(kept, anchors).problems] == [len(entries)]


@given(EVENTS, st.data())
def test_a_chain_computed_anew_is_seen_by_an_anchor_alone(
    events: list[tuple[str, str, str, str]], data: st.DataObject
) -> None:
    """Whoever owns the database can make every hash fit again, but not one that was taken away."""
    entries = chain(events)
    anchors = [anchor_of(entries[-1])]
    place = data.draw(st.integers(0, len(entries) - 1))
    entries[place] = replace(entries[place], actor=entries[place].actor + "x")
    forged = chained(entries)
    assert checked(forged).problems == []
    assert [p.seq for p in checked(forged, anchors).problems] == [len(entries)]


def archived(
    events: list[tuple[str, str, str, str]], through: int
) -> tuple[list[AuditEntry], list[AuditEntry]]:
    """A chain whose last entry says that those up to number `through` went: those, and the rest."""
    last = chain(events)[through - 1]
    told = json.dumps({"through": through, "hash": last.hash.hex()})
    entries = chain([*events, ("role:auth_owner", "audit.archive", "", told)])
    return entries[:through], entries[through:]


@given(EVENTS, st.data())
def test_a_chain_goes_on_after_what_was_archived(
    events: list[tuple[str, str, str, str]], data: st.DataObject
) -> None:
    """Alone, and together with the archive; of archived entries the last one's anchor holds."""
    through = data.draw(st.integers(1, len(events)))
    gone, left = archived(events, through)
    anchors = [anchor_of(entry) for entry in (*gone, *left)]
    check = checked(left, anchors)
    assert (check.problems, check.archived) == ([], through)
    assert (check.anchors_held, check.anchors_archived) == (len(left) + 1, through - 1)
    whole = checked([*gone, *left], anchors)
    assert (whole.problems, whole.archived) == ([], 0)
    assert (whole.anchors_held, whole.anchors_archived) == (len(anchors), 0)


@given(EVENTS, st.data())
def test_a_beginning_that_nobody_archived_was_deleted(
    events: list[tuple[str, str, str, str]], data: st.DataObject
) -> None:
    """Be there no word of an archive, or one that tells of fewer entries."""
    events = [*events, ("a", "b", "c", "d")]
    through = data.draw(st.integers(1, len(events) - 1))
    assert [p.seq for p in checked(chain(events)[through:]).problems] == [1]
    _, left = archived(events, through)
    assert [p.seq for p in checked(left[1:]).problems] == [1]


def test_an_archive_entry_with_another_hash_does_not_excuse_what_is_missing() -> None:
    """Somebody wrote the archived entries anew, and what follows them too."""
    told = json.dumps({"through": 1, "hash": "00" * 32})
    entries = chain([("a", "b", "c", "d"), ("r", "audit.archive", "", told)])
    assert [p.seq for p in checked(entries[1:]).problems] == [1]
    for junk in ("{}", "[]", '{"through": "x", "hash": ""}', '{"through": 1, "hash": 1}'):
        entries = chain([("a", "b", "c", "d"), ("r", "audit.archive", "", junk)])
        assert [p.seq for p in checked(entries[1:]).problems] == [1]


@settings(max_examples=200)
@given(st.lists(TEXT, min_size=4, max_size=4), st.lists(TEXT, min_size=4, max_size=4))
def test_no_two_different_entries_hash_alike(one: list[str], other: list[str]) -> None:
    """Above all not those whose texts, written one after the other, are the same."""
    hashes = [chain([(texts[0], texts[1], texts[2], texts[3])])[0].hash for texts in (one, other)]
    assert (hashes[0] == hashes[1]) == (one == other)
    shifted = [one[0] + "x", one[1], one[2], one[3]], [one[0], "x" + one[1], one[2], one[3]]
    first, second = (chain([(t[0], t[1], t[2], t[3])])[0].hash for t in shifted)
    assert first != second


def test_an_entry_of_another_tenant_or_log_is_seen() -> None:
    entries = chain([("a", "b", "c", "d"), ("e", "f", "g", "h")])
    for change in ({"tenant_id": "other"}, {"log": "memory"}):
        foreign = [entries[0], sealed(replace(entries[1], **change))]
        assert [p.text for p in checked(foreign).problems] == ["the entry belongs to another chain"]


def test_anchors_of_other_chains_say_nothing_of_this_one() -> None:
    """A service's log file holds those of all tenants."""
    entries = chain([("a", "b", "c", "d")])
    others = [AuditAnchor("memory", "t", 9, b"x"), AuditAnchor("auth", "other", 9, b"x")]
    check = checked(entries, others)
    assert (check.problems, check.anchors_held) == ([], 0)


@pytest.mark.parametrize("tenant", ["t", "other"])
def test_an_empty_chain_with_an_anchor_was_cut_off(tenant: str) -> None:
    """With no entry left the chain's tenant is not known, so any anchor of the log counts."""
    assert checked([], [AuditAnchor("auth", tenant, 3, b"x")]).problems
