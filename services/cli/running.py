"""How a command runs and fails: one line on standard error and a status that tells."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

import typer
from rich.console import Console

from echomesh import EchomeshError
from services.cli.files import CommandError

_T = TypeVar("_T")


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run to the end; what is known to go wrong ends the process with status 1."""
    try:
        return asyncio.run(work)
    except (CommandError, EchomeshError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(line: str) -> NoReturn:
    """Say what is wrong, and end with status 1."""
    Console(stderr=True, soft_wrap=True).print(f"echomesh: {line}", markup=False, highlight=False)
    raise typer.Exit(1)
