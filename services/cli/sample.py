"""The sample conversation: a history imported, then asked about, with nothing scripted."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from echomesh import Client
from services.cli.chat import Reply, ask, live_writer
from services.cli.importer import import_lines, wait_indexed

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CONVERSATION = "sample-tour"
WRITING = "Write a poem of two lines about the sea."
"""What even a small language model can do, and the extractive responder cannot."""
_INDEX_TIMEOUT_S = 120.0


async def play(
    client: Client, console: Console, speaker: str = "Maya", *, writes: bool = False
) -> None:
    """Import the history (once) and ask the questions of `examples/questions.jsonl`.

    With a language model that `writes`, it is shown writing at the end.
    """
    await load_history(client, console)
    lines = (EXAMPLES / "questions.jsonl").read_text().splitlines()
    for text in [*(json.loads(line)["text"] for line in lines), *([WRITING] if writes else [])]:
        console.print(f"\n[bold]{speaker}>[/bold] {text}", highlight=False)
        reply = await _told(client, console, text, speaker)
        if reply.final is not None and reply.final.degraded:
            console.print("[dim]  asked again, with more time: the machine is busy[/dim]")
            await _told(client, console, text, speaker, tier="standard")


async def _told(client: Client, console: Console, text: str, speaker: str, tier: str = "") -> Reply:
    """Ask, show the reply as it comes, and what there is to say of it."""
    reply = await ask(client, text, CONVERSATION, speaker, live_writer(console), tier)
    console.print(f"\n[dim]{facts(reply)}[/dim]", highlight=False)
    return reply


async def load_history(client: Client, console: Console) -> None:
    """Import the sample and wait until it is indexed."""
    with (EXAMPLES / "history.jsonl").open("rb") as lines:
        report = await import_lines(client, lines, lambda _: None)
    console.print(
        f"Sample history: {report.stored} messages stored, {report.duplicates} there already",
        highlight=False,
    )
    async for _memories, pending in wait_indexed(client, _INDEX_TIMEOUT_S):
        if pending:
            console.print(f"  indexing, {pending} to go ...", style="dim", highlight=False)


def facts(reply: Reply) -> str:
    """Tier, model, memories, times and trace of a reply, in one line."""
    final = reply.final
    if final is None:
        return "no final frame"
    without = f" · without {', '.join(final.degraded)}" if final.degraded else ""
    return (
        f"  {final.tier} · {final.model} · {len(reply.used())} memories · "
        f"first text {final.first_text_s * 1000:.0f} ms, total {final.total_s * 1000:.0f} ms · "
        f"trace {reply.trace_id}{without}"
    )
