"""`python -m services.auth migrate|bootstrap|prepare`: what runs before the service does."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from services.auth.bootstrap import Bootstrap, read_existing, write_credentials
from services.auth.config import AuthSettings
from services.auth.preparing import Wanted, prepare
from services.auth.server import build_parts, required
from services.auth.wrapping import ensure_wrapping_key
from services.runtime.clock import SystemClock
from services.runtime.errors import AppError
from services.runtime.kube import Conflict, Secret
from services.runtime.logs import setup_logs
from services.runtime.migrate import MigrationError, migrate_service
from services.runtime.pgbinaries import PostgresUnavailable

_MIGRATIONS = Path(__file__).parent / "migrations"


def run_command(settings: AuthSettings, arguments: Sequence[str]) -> None:
    """Run one command; ends the process with one line if it cannot be done."""
    options = _parser().parse_args(arguments)
    # What is logged, such as the audit log's anchors, stays out of what a command prints.
    logs = setup_logs("auth", settings)
    try:
        asyncio.run(_COMMANDS[options.command](settings, options))
    except (AppError, Conflict, MigrationError, PostgresUnavailable) as error:
        text = error.message if isinstance(error, AppError) else str(error)
        raise SystemExit(f"echomesh: {text}") from error
    finally:
        logs.close()


async def _migrate(settings: AuthSettings, _: argparse.Namespace) -> None:
    dsn = required(settings.database_direct_url, "DATABASE_DIRECT_URL")
    wait_s = settings.database_wait_s
    for name in await migrate_service("auth", dsn, _MIGRATIONS, wait_s=wait_s):
        sys.stdout.write(f"applied {name}\n")


async def _bootstrap(settings: AuthSettings, options: argparse.Namespace) -> None:
    if options.secret:
        await bootstrap_secret(settings, Secret(options.secret))
        return
    path = options.output or settings.data_dir / "credentials.json"
    async with _opened(settings) as work:
        credentials = await work.run(settings.bootstrap_tenant, read_existing(path))
    write_credentials(path, credentials)
    _show(credentials, str(path))


async def bootstrap_secret(settings: AuthSettings, secret: Secret) -> None:
    """Make the first keys and keep them in a Secret; again, as at each upgrade, changes nothing.

    A key that was revoked since stays so. Raises AppError, Conflict.
    """
    async with _opened(settings) as work:
        credentials = await work.run(settings.bootstrap_tenant, _texts(secret), renew=False)
        try:
            secret.add({key: value.encode() for key, value in credentials.items()})
        except (AppError, Conflict):
            # Only the answer may be lost: then the Secret has them. While it cannot be read that
            # is not known, and they stay.
            await work.take_back(credentials, kept=_texts(secret))
            raise
    _show(credentials, "in the Secret")


def _texts(secret: Secret) -> dict[str, str]:
    return {key: value.decode() for key, value in secret.read().items()}


@asynccontextmanager
async def _opened(settings: AuthSettings) -> AsyncIterator[Bootstrap]:
    async with AsyncExitStack() as stack:
        wrapping_key = ensure_wrapping_key(settings.wrapping_key_file)
        parts = build_parts(settings, wrapping_key, stack)
        yield Bootstrap(parts.store, parts.administration, parts.keyring, SystemClock())


def _show(credentials: Mapping[str, str], place: str) -> None:
    shown = {key: value for key, value in credentials.items() if not key.endswith("_key")}
    sys.stdout.write(json.dumps({**shown, "credentials": place}) + "\n")


async def _prepare(_: AuthSettings, options: argparse.Namespace) -> None:
    url = options.postgres_url_file.read_text("utf-8").strip() if options.postgres_url_file else ""
    wanted = Wanted(
        options.services.split(","), url, options.postgres_host, options.wait, options.certificates
    )
    await prepare(Secret(options.secret), wanted)


_COMMANDS: Mapping[str, Callable[[AuthSettings, argparse.Namespace], Coroutine[Any, Any, None]]] = {
    "migrate": _migrate,
    "bootstrap": _bootstrap,
    "prepare": _prepare,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.auth", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("migrate", help="bring schema auth up to date (owner role)")
    bootstrap = commands.add_parser("bootstrap", help="make the first tenant, user and keys")
    bootstrap.add_argument("--output", type=Path, help="credentials file, mode 0600")
    bootstrap.add_argument("--secret", help="a Secret of Kubernetes instead of a file")
    prepare = commands.add_parser("prepare", help="make a mesh's keys and database on Kubernetes")
    prepare.add_argument("--secret", required=True, help="the Secret that keeps them")
    prepare.add_argument("--services", required=True, help="the services, with commas between")
    prepare.add_argument("--postgres-url-file", type=Path, help="address of an administrator")
    prepare.add_argument("--postgres-host", default="", help="host:port of a server of our own")
    prepare.add_argument("--certificates", default="", help="trust domain of certificates to sign")
    prepare.add_argument("--wait", type=float, default=0.0, help="seconds to wait for Postgres")
    return parser
