"""A question on a terminal; no answer means no, so nobody is kept waiting who is not there."""

from __future__ import annotations

import asyncio
import sys
from typing import TextIO

from rich.console import Console

ANSWER_LIMIT_S = 20.0


def on_terminal(console: Console) -> bool:
    """Whether somebody can be asked."""
    return console.is_terminal and sys.stdin.isatty()


async def agreed(
    console: Console, question: str, terminal: TextIO | None = None, limit_s: float = ANSWER_LIMIT_S
) -> bool:
    """Ask, and return whether the answer is yes; anything else, or none within `limit_s`, is no."""
    terminal = terminal or sys.stdin
    console.print(f"{question} \\[y/N] ", end="")
    loop, typed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(terminal, typed.set)
    try:
        async with asyncio.timeout(limit_s):
            await typed.wait()
    except TimeoutError:
        console.print("no")
        return False
    finally:
        loop.remove_reader(terminal)
    return terminal.readline().strip().lower() in ("y", "yes")
