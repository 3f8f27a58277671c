"""`echomesh audit`: is the log whole, what does it show an auditor, and anchors to be kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from echomesh import AUDIT_LOGS, AuditAnchor
from services.cli.audit_chain import ChainCheck
from services.cli.audit_files import read_archives
from services.cli.audit_report import Evidence, lines_of
from services.cli.connect import Address, Authority, Data, Place
from services.cli.files import DEFAULT_DATA
from services.cli.running import fail, run

app = typer.Typer(no_args_is_help=True, help="The audit log of the key's tenant.")

Anchors = Annotated[
    list[Path] | None,
    typer.Option("--anchors", help="A file of anchors or of a service's JSON logs."),
]
Archives = Annotated[
    list[Path] | None,
    typer.Option("--archive", help="A file that `audit archive` wrote, of entries before these."),
]
AsJson = Annotated[bool, typer.Option("--json", help="As one JSON object.")]
# More than this are told by their number.
_PROBLEMS_SHOWN = 20


@dataclass
class Checked:
    """What came of reading and checking all logs."""

    checks: dict[str, ChainCheck] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong with any chain."""
        return not any(check.problems for check in self.checks.values())


@app.command()
def verify(
    anchors: Anchors = None,
    archives: Archives = None,
    data: Data = DEFAULT_DATA,
    address: Address = "",
    authority: Authority = None,
) -> None:
    """Check every entry, and that what the anchors name is still there; status 1 if not."""
    place = Place(data, address, authority)
    checked = run(_check(place, _read_anchors(anchors or []), archives or []))
    for line in verdict(checked):
        print(line)
    raise typer.Exit(0 if checked.whole else 1)


@app.command()
def report(
    anchors: Anchors = None,
    archives: Archives = None,
    as_json: AsJson = False,
    data: Data = DEFAULT_DATA,
    address: Address = "",
    authority: Authority = None,
) -> None:
    """Show what the log holds as evidence for SOC 2 criteria, in Markdown."""
    place = Place(data, address, authority)
    checked = run(_check(place, _read_anchors(anchors or []), archives or []))
    integrity = list(verdict(checked))
    if as_json:
        whole = {"whole": checked.whole, "integrity": integrity}
        print(json.dumps({**whole, **checked.evidence.as_json()}, indent=2))
    else:
        print("\n".join(lines_of(checked.evidence, integrity)))
    raise typer.Exit(0 if checked.whole else 1)


@app.command()
def anchor(
    data: Data = DEFAULT_DATA,
    address: Address = "",
    authority: Authority = None,
) -> None:
    """Print each chain's last entry as a JSON line; append it to a file kept elsewhere."""
    for found in run(_anchors_now(Place(data, address, authority))):
        print(anchor_line(found))


@app.command()
def archive(
    before: Annotated[datetime, typer.Option(help="Older entries are moved; UTC.")],
    out: Annotated[Path, typer.Option(help="The folder for the files, one for each tenant.")],
    owner_url: Annotated[Path, typer.Option(help="A file: address of the schema's owner role.")],
    log: Annotated[str, typer.Option(help="Whose log: auth or memory.")],
) -> None:
    """Move old entries of all tenants into files; `verify --archive FILE` goes on from them."""
    if log not in AUDIT_LOGS:
        fail(f"there is no log of {log}: {' or '.join(AUDIT_LOGS)}")
    # Imported here: of all commands this one alone speaks to the database.
    from services.cli.audit_archive import archive as move

    try:
        url = owner_url.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{owner_url} cannot be read: {error}")
    for moved in run(move(url, log, before.replace(tzinfo=UTC), out)):
        print(f"{log}, tenant {moved.tenant_id}: {moved.first} to {moved.last} in {moved.path}")


def verdict(checked: Checked) -> Iterator[str]:
    """What was found, line by line."""
    for log, check in checked.checks.items():
        state = "whole" if not check.problems else f"{len(check.problems)} problems"
        held = f"{check.anchors_held} anchors hold"
        entries = f"{check.seq - check.archived} entries{_archived(check)}"
        yield f"{log}: {entries}, {state}, {held}{_end_of(check)}"
        for problem in check.problems[:_PROBLEMS_SHOWN]:
            yield f"  entry {problem.seq}: {problem.text}"
        if len(check.problems) > _PROBLEMS_SHOWN:
            yield f"  and {len(check.problems) - _PROBLEMS_SHOWN} more"


def _archived(check: ChainCheck) -> str:
    """What cannot be said without the files that hold the entries before these."""
    if not check.archived:
        return ""
    anchors = f" and {check.anchors_archived} anchors of them" if check.anchors_archived else ""
    return f" after {check.archived} archived ones (these{anchors} are checked with --archive)"


def _end_of(check: ChainCheck) -> str:
    last = check.last
    return f", last {last.time:%Y-%m-%dT%H:%M:%SZ} {last.hash.hex()}" if last else ""


async def _check(place: Place, anchors: Iterable[AuditAnchor], archives: Sequence[Path]) -> Checked:
    checked = Checked()
    known = list(anchors)
    async with place.client() as client:
        for log in AUDIT_LOGS:
            check = checked.checks[log] = ChainCheck(log, known)
            async for entry in client.audit_entries(log):
                before = read_archives(archives, entry) if check.last is None else ()
                for each in chain(before, (entry,)):
                    check.take(each)
                    checked.evidence.take(each)
            check.end()
    return checked


async def _anchors_now(place: Place) -> list[AuditAnchor]:
    async with place.client() as client:
        found = [await client.audit_anchor(log) for log in AUDIT_LOGS]
    return [each for each in found if each.seq]


def anchor_line(found: AuditAnchor) -> str:
    """An anchor as the line that `read_anchor` and a service's log have in common."""
    return json.dumps(
        {
            "log": found.log,
            "tenant_id": found.tenant_id,
            "seq": found.seq,
            "hash": found.hash.hex(),
        }
    )


def read_anchor(line: str) -> AuditAnchor | None:
    """The anchor in a line of JSON, such as of a service's log; None if it tells of none."""
    try:
        found = json.loads(line)
        digest = bytes.fromhex(found["hash"])
        return AuditAnchor(str(found["log"]), str(found["tenant_id"]), int(found["seq"]), digest)
    except (ValueError, KeyError, TypeError):
        return None


def _read_anchors(files: Iterable[Path]) -> list[AuditAnchor]:
    """All anchors of the files; raises CommandError for a file without one: a mistaken name."""
    anchors: list[AuditAnchor] = []
    for path in files:
        try:
            # Line by line: a service's logs may be large, and hold few anchors.
            with path.open(encoding="utf-8") as lines:
                found = [each for each in map(read_anchor, lines) if each is not None]
        except (OSError, UnicodeDecodeError) as error:
            fail(f"{path} cannot be read: {error}")
        if not found:
            fail(f"{path} holds no anchors")
        anchors += found
    return anchors
