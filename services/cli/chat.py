"""`echomesh chat`: talk with the companion on a terminal or through a pipe."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from rich.console import Console

from echomesh import (
    Accepted,
    Client,
    EchomeshError,
    Final,
    Frame,
    MemoriesUsed,
    Restart,
    Resume,
    Text,
    UsedMemory,
)

HELP = "/memories shows what the last reply rested on, /quit ends."


@dataclass
class Reply:
    """What a chat call brought."""

    text: str = ""
    name: str = ""
    memories: tuple[UsedMemory, ...] = ()
    final: Final | None = None
    trace_id: str = ""
    parts: list[str] = field(default_factory=list)

    def take(self, frame: Frame) -> None:
        """Add one frame."""
        match frame:
            case Accepted():
                self.name, self.trace_id = frame.assistant_name, frame.trace_id
            case Text():
                self.parts.append(frame.text)
            case Restart():
                self.parts.clear()
            case MemoriesUsed():
                self.memories = frame.memories
            case Final():
                self.final = frame
        self.text = "".join(self.parts)

    def used(self) -> list[UsedMemory]:
        """The memories the reply rests on, best first; all that were offered if it names none."""
        by_id = {memory.memory_id: memory for memory in self.memories}
        if self.final is None or not self.final.used_memory_ids:
            return list(self.memories)
        return [by_id[i] for i in self.final.used_memory_ids if i in by_id]


async def ask(
    client: Client,
    text: str,
    conversation_id: str,
    speaker: str,
    on_frame: Callable[[Frame], None] = lambda _: None,
    tier: str = "",
) -> Reply:
    """Send one message and collect the reply; `on_frame` sees every frame as it comes."""
    reply = Reply()
    frames = client.chat(text, conversation_id=conversation_id, speaker=speaker, tier=tier)
    async for frame in frames:
        reply.take(frame)
        on_frame(frame)
    return reply


async def run_pipe(client: Client, conversation_id: str, speaker: str) -> None:
    """Each line in is a message; the replies alone go to standard output."""
    for line in sys.stdin:
        if line.strip():
            reply = await ask(client, line.strip(), conversation_id, speaker)
            print(reply.text, flush=True)


async def run_terminal(client: Client, conversation_id: str, speaker: str) -> None:
    """Talk until end of input."""
    console = Console()
    console.print(f"[dim]{HELP}[/dim]")
    last = Reply()
    async for line in _lines(console):
        if line == "/memories":
            show_memories(console, last)
        elif line:
            last = await _answer(console, client, line, conversation_id, speaker)


async def _lines(console: Console) -> AsyncIterator[str]:
    while True:
        try:
            line = (await asyncio.to_thread(console.input, "[bold]you>[/bold] ")).strip()
        except (EOFError, KeyboardInterrupt):
            return
        if line in {"/quit", "/exit"}:
            return
        yield line


async def _answer(
    console: Console, client: Client, line: str, conversation_id: str, speaker: str
) -> Reply:
    try:
        reply = await ask(client, line, conversation_id, speaker, live_writer(console))
    except EchomeshError as error:
        console.print(f"\n[red]{error}[/red]", highlight=False)
        return Reply()
    console.print()
    return reply


def live_writer(console: Console) -> Callable[[Frame], None]:
    """Print the text of a reply as it comes."""

    def write(frame: Frame) -> None:
        match frame:
            case Accepted():
                console.print(f"[bold cyan]{frame.assistant_name or 'echo'}>[/bold cyan] ", end="")
            case Text():
                console.print(frame.text, end="", markup=False, highlight=False)
            case Restart():
                console.print("\n[dim](begins again)[/dim] ", end="")
            case Resume():
                console.print("[dim](another model goes on)[/dim] ", end="")

    return write


def show_memories(console: Console, reply: Reply) -> None:
    """List the memories behind a reply."""
    used = reply.used()
    if not used:
        console.print("[dim]no memories were used[/dim]")
    for memory in used:
        when = memory.time.strftime("%Y-%m-%d")
        line = f"  {when} {memory.speaker}: {memory.text}"
        console.print(line, markup=False, highlight=False, style="dim")
