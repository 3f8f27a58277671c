"""`python -m services.auth migrate` and `bootstrap`: what runs before the service does."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from services.auth.bootstrap import Bootstrap, read_existing, write_credentials
from services.auth.config import AuthSettings
from services.auth.server import build_parts, required
from services.auth.wrapping import ensure_wrapping_key
from services.runtime.clock import SystemClock
from services.runtime.errors import AppError
from services.runtime.migrate import MigrationError, migrate_service

_MIGRATIONS = Path(__file__).parent / "migrations"


def run_command(settings: AuthSettings, arguments: Sequence[str]) -> None:
    """Run one command; ends the process with one line if it cannot be done."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "migrate":
            asyncio.run(_migrate(settings))
        else:
            asyncio.run(_bootstrap(settings, options.output))
    except (AppError, MigrationError) as error:
        text = error.message if isinstance(error, AppError) else str(error)
        raise SystemExit(f"echomesh: {text}") from error


async def _migrate(settings: AuthSettings) -> None:
    dsn = required(settings.database_direct_url, "DATABASE_DIRECT_URL")
    for name in await migrate_service("auth", dsn, _MIGRATIONS):
        sys.stdout.write(f"applied {name}\n")


async def _bootstrap(settings: AuthSettings, output: Path | None) -> None:
    path = output or settings.data_dir / "credentials.json"
    existing = read_existing(path)
    async with AsyncExitStack() as stack:
        wrapping_key = ensure_wrapping_key(settings.wrapping_key_file)
        parts = build_parts(settings, wrapping_key, stack)
        work = Bootstrap(parts.store, parts.administration, parts.keyring, SystemClock())
        credentials = await work.run(settings.bootstrap_tenant, existing)
    write_credentials(path, credentials)
    shown = {key: value for key, value in credentials.items() if not key.endswith("_key")}
    sys.stdout.write(json.dumps({**shown, "credentials": str(path)}) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.auth", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("migrate", help="bring schema auth up to date (owner role)")
    bootstrap = commands.add_parser("bootstrap", help="make the first tenant, user and keys")
    bootstrap.add_argument("--output", type=Path, help="credentials file, mode 0600")
    return parser
