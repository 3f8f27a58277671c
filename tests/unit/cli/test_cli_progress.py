"""A start is shown in plain lines, and live only where somebody watches."""

from __future__ import annotations

import io
import re

from rich.console import Console

from services.cli.progress import StartProgress


def shown(*, terminal: bool) -> str:
    """What a start and a later event leave on the screen or in the log."""
    screen = io.StringIO()
    progress = StartProgress(Console(file=screen, force_terminal=terminal, width=80))
    with progress:
        progress.waiting("postgres")
        progress.say("postgres is up")
    progress.say("memory ended (-9); starting it again")
    return screen.getvalue()


def test_without_a_terminal_each_part_is_one_plain_line_with_its_time() -> None:
    first, second = shown(terminal=False).splitlines()
    assert re.fullmatch(r"  [ \d]+\.\d s  postgres is up", first)
    assert re.fullmatch(r"  \d\d:\d\d:\d\d  memory ended \(-9\); starting it again", second)


def test_on_a_terminal_what_is_awaited_is_shown_and_taken_away_again() -> None:
    text = shown(terminal=True)
    assert "waiting for postgres" in text
    assert "\x1b[2K" in text.rpartition("waiting for")[2]
