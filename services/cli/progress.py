"""How a start is shown: one line for each part that is up, and on a terminal what is awaited."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class StartProgress:
    """Surrounds a start. After it, lines carry the time of day: they may come hours later."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._starting = True
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("waiting for {task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._live.add_task("", visible=False)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start began."""
        return time.monotonic() - self._began

    def say(self, line: str) -> None:
        """Show what happened, with when it did.

        Output that cannot be written, as into a file on a full disk, is lost: it must not end
        those who watch over the parts.
        """
        now = f"{self.elapsed_s:4.1f} s" if self._starting else time.strftime("%H:%M:%S")
        with suppress(OSError):
            self._console.print(f"  {now}  {line}", style="dim", markup=False)

    def waiting(self, what: str) -> None:
        """Show what is awaited now, where somebody watches."""
        self._live.update(self._task, description=what, visible=True)

    def __enter__(self) -> StartProgress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._starting = False
        if self._console.is_terminal:
            self._live.stop()
