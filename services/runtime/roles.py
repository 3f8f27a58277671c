"""Databases, schemas and roles of the mesh: one schema and three roles for every service.

`<svc>_owner` owns the schema and runs its migrations, `<svc>_app` serves requests under row-level
security, `<svc>_jobs` works across tenants. Each has rights in its own schema only, and on its
tables only what a migration grants.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

RoleKind = Literal["owner", "app", "jobs"]

KINDS: tuple[RoleKind, ...] = ("owner", "app", "jobs")

MESH_DATABASE = "echomesh"

SERVICES_WITH_SCHEMA = ("auth", "memory", "routing")

_PROVISION_LOCK = 0x6563686F
"""Key of the advisory lock that lets one process at a time provision ("echo")."""

_LIMITS: Mapping[RoleKind, Mapping[str, str]] = {
    # A migration may scan a large table, but must not queue behind a lock for long.
    "owner": {"lock_timeout": "2s"},
    # A frozen caller inside a transaction must not hold its rows for longer than this.
    "app": {
        "statement_timeout": "5s",
        "lock_timeout": "2s",
        "idle_in_transaction_session_timeout": "5s",
    },
    # Background work reads more at once, but frees its locks as soon.
    "jobs": {
        "statement_timeout": "30s",
        "lock_timeout": "2s",
        "idle_in_transaction_session_timeout": "5s",
    },
}


@dataclass(frozen=True)
class RoleDsns:
    """Connection addresses of one service's three roles."""

    owner: str
    app: str
    jobs: str


def new_passwords(services: Iterable[str]) -> dict[str, str]:
    """Return a fresh random password for each role of each service."""
    return {f"{svc}_{kind}": secrets.token_urlsafe(24) for svc in services for kind in KINDS}


def with_login(dsn: str, *, user: str, password: str, database: str) -> str:
    """Return `dsn` with another user, password and database; host and options stay."""
    parts = urlsplit(dsn)
    hosts = parts.netloc.rpartition("@")[2]
    netloc = f"{quote(user)}:{quote(password, safe='')}@{hosts}"
    return urlunsplit((parts.scheme, netloc, f"/{database}", parts.query, ""))


def role_dsns(
    admin_dsn: str, service: str, passwords: Mapping[str, str], database: str = MESH_DATABASE
) -> RoleDsns:
    """Return the addresses with which one service's roles reach `database`."""
    owner, app, jobs = (
        with_login(
            admin_dsn,
            user=f"{service}_{kind}",
            password=passwords[f"{service}_{kind}"],
            database=database,
        )
        for kind in KINDS
    )
    return RoleDsns(owner=owner, app=app, jobs=jobs)


async def provision(
    admin_dsn: str,
    services: Iterable[str],
    passwords: Mapping[str, str],
    database: str = MESH_DATABASE,
) -> None:
    """Create the database, the roles and the schemas that are missing, and set all rights.

    May be run again at any time; passwords and limits are then brought up to date.

    Args:
        admin_dsn: address of a role that may create databases and roles.
        services: services that own a schema.
        passwords: password of each role, by role name.
        database: name of the database to provision.

    """
    names = list(services)
    server = await asyncpg.connect(admin_dsn, timeout=10)
    try:
        await server.execute("select pg_advisory_lock($1)", _PROVISION_LOCK)
        await _create_database(server, database)
        for svc in names:
            await _create_roles(server, svc, passwords)
        parts = urlsplit(admin_dsn)
        inside = urlunsplit((parts.scheme, parts.netloc, f"/{database}", parts.query, ""))
        await _create_schemas(inside, names, database)
    finally:
        await server.close(timeout=5)


async def _create_database(server: asyncpg.Connection, database: str) -> None:
    if not await server.fetchval("select 1 from pg_database where datname = $1", database):
        await server.execute(f'create database "{database}"')
    await server.execute(f'revoke all on database "{database}" from public')


async def _create_roles(
    server: asyncpg.Connection, service: str, passwords: Mapping[str, str]
) -> None:
    for kind in KINDS:
        role = f"{service}_{kind}"
        if not await server.fetchval("select 1 from pg_roles where rolname = $1", role):
            await server.execute(f'create role "{role}" login')
        literal = await server.fetchval("select quote_literal($1::text)", passwords[role])
        await server.execute(f'alter role "{role}" password {literal}')
        await server.execute(f'alter role "{role}" set search_path = "{service}"')
        for setting, value in _LIMITS[kind].items():
            await server.execute(f"alter role \"{role}\" set {setting} = '{value}'")
    # Where the administrator is no superuser, it must be a member to hand a schema over.
    await server.execute(f'grant "{service}_owner" to current_user')


async def _create_schemas(inside_dsn: str, services: list[str], database: str) -> None:
    connection = await asyncpg.connect(inside_dsn, timeout=10)
    try:
        async with connection.transaction():
            await connection.execute("revoke all on schema public from public")
            for svc in services:
                await connection.execute(_schema_sql(svc, database))
    finally:
        await connection.close(timeout=5)


def _schema_sql(svc: str, database: str) -> str:
    users = f'"{svc}_app", "{svc}_jobs"'
    defaults = f'alter default privileges for role "{svc}_owner" in schema "{svc}"'
    return f"""
        grant connect, temporary on database "{database}" to "{svc}_owner";
        grant connect on database "{database}" to {users};
        create schema if not exists "{svc}" authorization "{svc}_owner";
        grant usage on schema "{svc}" to {users};
        {defaults} revoke all on tables from {users};
        {defaults} grant usage, select on sequences to {users};
        {defaults} grant execute on functions to {users};
        alter default privileges for role "{svc}_owner"
            revoke execute on functions from public;
    """  # noqa: S608 - names of our own services
