"""The composition root: the only place that builds and closes what auth is made of."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from pydantic import SecretStr

from echomesh.auth.v1 import admin_pb2_grpc, audit_pb2_grpc, auth_pb2_grpc
from services.auth.administration import Administration
from services.auth.audit_service import AuditServicer
from services.auth.config import AuthSettings
from services.auth.credentials import SystemRandomness
from services.auth.keyring import Keyring, policy_from
from services.auth.passwords import Passwords
from services.auth.postgres_store import PostgresStore
from services.auth.pruning import keep_pruned
from services.auth.service import AdminServicer, AuthServicer
from services.auth.sessions import Lifetimes, Sessions
from services.auth.wrapping import derive_key, read_wrapping_key
from services.runtime.audit import AuditLog
from services.runtime.audit_reading import AuditReader
from services.runtime.clock import Clock, SystemClock
from services.runtime.errors import AppError, Reason
from services.runtime.postgres import Database
from services.runtime.security import open_security
from services.runtime.server import Registration, Server, background


@dataclass(frozen=True)
class Parts:
    """The domain of auth, wired to Postgres."""

    database: Database
    store: PostgresStore
    keyring: Keyring
    passwords: Passwords
    sessions: Sessions
    administration: Administration


def build_parts(
    settings: AuthSettings,
    wrapping_key: bytes,
    stack: AsyncExitStack,
    clock: Clock | None = None,
) -> Parts:
    """Build the domain; nothing is contacted yet. What must be closed goes on the stack."""
    clock, randomness = clock or SystemClock(), SystemRandomness()
    database = Database(required(settings.database_url, "DATABASE_URL"), name="auth")
    stack.push_async_callback(database.close)
    passwords = Passwords(settings.password_workers)
    stack.callback(passwords.close)
    store = PostgresStore(database)
    policy = policy_from(settings.key_publish_ahead_s, settings.access_token_ttl_s)
    keyring = Keyring(store, wrapping_key, policy, clock, randomness)
    lifetimes = Lifetimes(
        refresh_token=timedelta(seconds=settings.refresh_token_ttl_s),
        family=timedelta(seconds=settings.session_ttl_s),
    )
    sessions = Sessions(store, keyring, passwords, lifetimes, clock, randomness)
    fingerprint_key = derive_key(wrapping_key, "request fingerprints")
    administration = Administration(store, keyring, passwords, fingerprint_key, clock, randomness)
    return Parts(database, store, keyring, passwords, sessions, administration)


async def build(settings: AuthSettings, stack: AsyncExitStack) -> Server:
    """Build the service. Postgres need not be up: health does not follow it."""
    parts = build_parts(settings, read_wrapping_key(settings.wrapping_key_file), stack)
    if settings.jobs_database_url is not None:
        jobs = Database(settings.jobs_database_url.get_secret_value(), name="auth-jobs", max_size=1)
        stack.push_async_callback(jobs.close)
        await background(stack, keep_pruned(jobs, SystemClock()))
    security = await open_security("auth", settings, stack, fetch=parts.keyring.jwks)
    registrations = registrations_of(parts)
    return Server(
        name="auth",
        settings=settings,
        public=registrations,
        mesh=registrations,
        validator=security.validator,
        verifier=security.verifier,
        dependencies={**security.channels.dependencies(), "postgres": parts.database.ping},
    )


def registrations_of(parts: Parts) -> list[Registration]:
    """Return auth's gRPC services."""
    return [
        Registration(
            auth_pb2_grpc.add_AuthServiceServicer_to_server,
            AuthServicer(parts.sessions, parts.keyring),
            "echomesh.auth.v1.AuthService",
        ),
        Registration(
            admin_pb2_grpc.add_AdminServiceServicer_to_server,
            AdminServicer(parts.administration),
            "echomesh.auth.v1.AdminService",
        ),
        Registration(
            audit_pb2_grpc.add_AuditServiceServicer_to_server,
            AuditServicer(AuditReader(parts.database, AuditLog("auth"))),
            "echomesh.auth.v1.AuditService",
        ),
    ]


def required(value: SecretStr | None, key: str) -> str:
    """Return a setting that has no default; raises AppError with one line if it is unset."""
    if value is None:
        raise AppError(Reason.INTERNAL, f"auth needs ECHOMESH_AUTH_{key}")
    return value.get_secret_value()
