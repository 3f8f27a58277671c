"""The commands. Each says in one line what is wrong and ends with a status that tells."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from echomesh import Client, __version__
from services.cli import audit as audit_command
from services.cli import chat as chat_command
from services.cli import doctor as doctor_command
from services.cli import why as why_command
from services.cli.certs import certs
from services.cli.connect import Address, Authority, Data, Place, User
from services.cli.files import DEFAULT_DATA, CommandError
from services.cli.importer import ImportReport, import_lines, wait_indexed
from services.cli.running import fail as _fail
from services.cli.running import run as _run
from services.cli.settings_view import in_force
from services.cli.up import UpOptions, run_up

# A large history may still be indexing when this is over; recall finds it all the same.
_INDEX_TIMEOUT_S = 600.0
# The last of a mesh's ports lies 24 above the first.
_MAX_PORT_BASE = 65_535 - 24
# Status when some lines of an import were not valid; the valid ones are stored.
_SOME_REJECTED = 2

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(audit_command.app, name="audit")
app.command()(certs)


@app.command()
def up(
    data: Data = DEFAULT_DATA,
    port_base: Annotated[
        int, typer.Option(help="First of the ports to listen on.", min=1, max=_MAX_PORT_BASE)
    ] = 7400,
    sample: Annotated[bool, typer.Option("--sample", help="Play the sample first.")] = False,
    leave: Annotated[bool, typer.Option("--exit", help="Stop after the sample.")] = False,
    openai_url: Annotated[str, typer.Option(help="An OpenAI-compatible address.")] = "",
    openai_model: Annotated[str, typer.Option(help="The model to ask there.")] = "",
    model: Annotated[Path | None, typer.Option(help="A GGUF file to serve with llama.cpp.")] = None,
    local_model: Annotated[
        bool, typer.Option("--local-model", help="Fetch and serve a small language model.")
    ] = False,
) -> None:
    """Start the mesh on this machine and keep it up until Ctrl-C."""
    options = UpOptions(
        data=data.expanduser(),
        port_base=port_base,
        sample=sample,
        leave=leave,
        openai_url=openai_url,
        openai_model=openai_model,
        model=model,
        local_model=local_model,
    )
    _run(run_up(options))


@app.command()
def chat(
    data: Data = DEFAULT_DATA,
    conversation: Annotated[str, typer.Option(help="Which conversation to go on with.")] = "main",
    speaker: Annotated[str, typer.Option(help="Your name.")] = "",
    address: Address = "",
    authority: Authority = None,
) -> None:
    """Talk with the companion; in a pipe, print the reply alone."""

    async def talk(client: Client) -> None:
        run = chat_command.run_terminal if sys.stdin.isatty() else chat_command.run_pipe
        await run(client, conversation, speaker)

    _run(_with_client(Place(data, address, authority), talk))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A JSONL file, or - for standard input.")],
    data: Data = DEFAULT_DATA,
    address: Address = "",
    authority: Authority = None,
) -> None:
    """Store a history: one JSON object a line (docs/import.schema.json)."""

    async def load(client: Client) -> ImportReport:
        lines: BinaryIO = sys.stdin.buffer if str(file) == "-" else file.open("rb")
        with lines:
            report = await import_lines(client, lines, _show_progress)
        async for memories, pending in wait_indexed(client, _INDEX_TIMEOUT_S):
            report.indexed = memories - pending
        return report

    if str(file) != "-" and not file.is_file():
        _fail(f"{file} is not a file")
    report = _run(_with_client(Place(data, address, authority), load))
    for rejected in report.rejected:
        print(f"line {rejected.line}: {rejected.reason}", file=sys.stderr)
    print(
        f"{report.stored} stored, {report.duplicates} there already, "
        f"{len(report.rejected)} not valid; {report.indexed} memories indexed"
    )
    raise typer.Exit(_SOME_REJECTED if report.rejected else 0)


@app.command()
def why(
    message: Annotated[str, typer.Argument(help="Id of a reply or of its question.")] = "",
    conversation: Annotated[str, typer.Option(help="Where to look without an id.")] = "main",
    at: Annotated[str, typer.Option(help="When the reply was there: 2:40, or RFC 3339.")] = "",
    user: User = "",
    data: Data = DEFAULT_DATA,
    address: Address = "",
    authority: Authority = None,
) -> None:
    """Show how a reply came to be; without an id the last one, or that of a time."""

    async def ask() -> None:
        async with Place(data, address, authority).client() as own:
            client = own.as_user(user) if user else own
            reply = None
            if not message:
                time = why_command.moment(at, datetime.now(UTC)) if at else None
                reply = await why_command.find_reply(client, conversation, time)
            explanation = await client.explain(message_id=reply.id if reply else message)
        for line in why_command.told(explanation, reply):
            print(line)

    _run(ask())


@app.command()
def doctor(
    data: Data = DEFAULT_DATA,
    address: Address = "",
    authority: Authority = None,
) -> None:
    """Check every part and say what to do."""

    async def check() -> bool:
        well = True
        place = Place(data.expanduser(), address, authority)
        async for finding in doctor_command.examine(place):
            well = well and finding.ok
            mark = "ok  " if finding.ok else "FAIL"
            advice = f" -> {finding.advice}" if finding.advice and not finding.ok else ""
            print(f"{mark} {finding.part:15} {finding.detail}{advice}")
        return well

    raise typer.Exit(0 if _run(check()) else 1)


@app.command()
def config(data: Data = DEFAULT_DATA) -> None:
    """Show what is in force and where it came from; secrets are masked."""
    try:
        for line in in_force(data.expanduser()):
            print(line)
    except CommandError as error:
        _fail(str(error))


@app.command()
def version() -> None:
    """Show the version."""
    print(__version__)


async def _with_client(place: Place, work: Any) -> Any:
    async with place.client() as client:
        return await work(client)


def _show_progress(report: ImportReport) -> None:
    if sys.stderr.isatty():
        print(f"\r{report.stored + report.duplicates} messages", end="", file=sys.stderr)


def main() -> None:
    """Entry point of the `echomesh` command."""
    app()
