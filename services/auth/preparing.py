"""What a mesh on Kubernetes needs before its services can start, made once and kept in a Secret.

The Secret is a data folder in small: each service's own key, everybody's public keys, the key
that wraps signing keys, and the addresses of the database's roles. What is there stays.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from services.auth.wrapping import ensure_wrapping_key
from services.runtime.certificates import new_authority, read_authority, service_certificate
from services.runtime.errors import AppError, Reason
from services.runtime.external import ExternalPostgres
from services.runtime.kube import Conflict, Secret
from services.runtime.pgbinaries import PostgresUnavailable
from services.runtime.private_files import kept_passwords, write_private
from services.runtime.roles import KINDS, new_passwords, role_dsns
from services.runtime.trust import create_trust

WITH_DATABASE = ("auth", "memory")
"""The services that keep something in Postgres."""

_POLL_S = 1.0
_PASSWORD_FILE = "postgres-password"  # noqa: S105 - a file's name


@dataclass(frozen=True)
class Wanted:
    """What to make.

    `postgres_url` is the address of a Postgres role that may create databases and roles; empty:
    the roles are made by somebody else. With `postgres_host` (host:port) alone a superuser's
    password is made too, for a server that is started with it. With `trust_domain` an authority and
    each service's certificate for mutual TLS are made too, good for as long as the authority is.
    """

    services: Sequence[str]
    postgres_url: str = ""
    postgres_host: str = ""
    wait_s: float = 0.0
    trust_domain: str = ""


async def prepare(secret: Secret, wanted: Wanted) -> None:
    """Fill the Secret, then bring the database's roles and schemas in step with it.

    Raises:
        AppError: the Secret cannot be used.
        PostgresUnavailable: the database cannot, within `wait_s` seconds.

    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        admin_dsn = fill(secret, folder, wanted)
        if admin_dsn:
            await _provision(ExternalPostgres(admin_dsn, folder, "the database"), wanted.wait_s)


def fill(secret: Secret, folder: Path, wanted: Wanted) -> str:
    """Add to the Secret what it lacks, by way of `folder`; returns the administrator's address."""
    while True:
        kept = secret.read()
        for name, content in kept.items():
            write_private(folder / name, content.decode())
        admin_dsn = make_missing(folder, wanted)
        made = {path.name: path.read_bytes() for path in folder.iterdir()}
        new = {name: content for name, content in made.items() if kept.get(name) != content}
        try:
            if new:
                secret.add(new)
        except Conflict:
            continue  # another job was faster: what it made stays
        sys.stdout.write(f"made: {', '.join(sorted(new)) or 'nothing, all is there'}\n")
        return admin_dsn


def make_missing(folder: Path, wanted: Wanted) -> str:
    """Make the files that are missing; returns the database administrator's address, if any."""
    create_trust(folder, wanted.services)
    ensure_wrapping_key(folder / "wrapping.key")
    if wanted.trust_domain:
        _make_certificates(folder, wanted, datetime.now(UTC))
    admin_dsn = wanted.postgres_url or _own_postgres(folder, wanted.postgres_host)
    if admin_dsn:
        passwords = kept_passwords(folder, new_passwords(WITH_DATABASE))
        _write_addresses(folder, admin_dsn, passwords, WITH_DATABASE)
    return admin_dsn


def _make_certificates(folder: Path, wanted: Wanted, now: datetime) -> None:
    cert, key = folder / "mesh-ca.crt", folder / "mesh-ca.key"
    if not cert.exists():
        made = new_authority(now)
        write_private(key, made.key_pem.decode())
        write_private(cert, made.cert_pem.decode())
    try:
        authority = read_authority(cert.read_bytes(), key.read_bytes(), now)
    except (OSError, ValueError) as error:
        text = f"mesh-ca.crt and mesh-ca.key cannot be used ({error}): see docs/kubernetes.md"
        raise AppError(Reason.INTERNAL, text) from None
    life = authority.certificate.not_valid_after_utc - now
    for service in wanted.services:
        if (folder / f"{service}.tls.crt").exists():
            continue
        pem = service_certificate(authority, service, wanted.trust_domain, now, life)
        write_private(folder / f"{service}.tls.key", pem.key.decode())
        write_private(folder / f"{service}.tls.crt", pem.cert.decode())


def _own_postgres(folder: Path, host: str) -> str:
    if not host:
        return ""
    path = folder / _PASSWORD_FILE
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return f"postgresql://postgres:{path.read_text()}@{host}/postgres"


def _write_addresses(
    folder: Path, admin_dsn: str, passwords: dict[str, str], services: Iterable[str]
) -> None:
    for service in services:
        dsns = role_dsns(admin_dsn, service, passwords)
        for kind in KINDS:
            write_private(folder / f"{service}-{kind}-url", getattr(dsns, kind))


async def _provision(postgres: ExternalPostgres, wait_s: float) -> None:
    loop = asyncio.get_running_loop()
    ends = loop.time() + wait_s
    said = ""
    while True:
        try:
            await postgres.start()
            break
        except PostgresUnavailable as error:
            if loop.time() >= ends:
                raise
            if str(error) != said:
                said = str(error)
                sys.stdout.write(f"waiting: {said}\n")
            await asyncio.sleep(_POLL_S)
    await postgres.provision(WITH_DATABASE)
    sys.stdout.write("the database's roles and schemas are there\n")
