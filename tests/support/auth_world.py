"""Auth over gRPC on a real Postgres, with a clock that tests move."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from echomesh.auth.v1 import admin_pb2_grpc, audit_pb2_grpc, auth_pb2, auth_pb2_grpc
from services.auth.bootstrap import Bootstrap
from services.auth.config import AuthSettings
from services.auth.server import Parts, build_parts, registrations_of
from services.auth.wrapping import ensure_wrapping_key
from services.runtime.clock import FakeClock
from services.runtime.errors import AppError
from services.runtime.server import Server
from services.runtime.status import from_rpc_error
from services.runtime.tokens import AssertionVerifier, KeySet, TokenValidator
from services.runtime.trust import create_trust, load_public
from tests.support.postgres import TestDatabase

TENANT = "first"


@dataclass
class AuthWorld:
    """A running auth service and the credentials that bootstrap made."""

    parts: Parts
    clock: FakeClock
    database: TestDatabase
    settings: AuthSettings
    validator: TokenValidator
    credentials: dict[str, str]
    channel: grpc.aio.Channel

    async def call(self, method: str, request: Message, token: str = "") -> Any:
        """Call an RPC by name on the public listener; raises the AppError that came over."""
        for stub in (
            auth_pb2_grpc.AuthServiceStub(self.channel),
            admin_pb2_grpc.AdminServiceStub(self.channel),
            audit_pb2_grpc.AuditServiceStub(self.channel),
        ):
            if hasattr(stub, method):
                metadata = [("authorization", f"Bearer {token}")] if token else []
                try:
                    return await getattr(stub, method)(request, metadata=metadata, timeout=20)
                except grpc.aio.AioRpcError as error:
                    raise from_rpc_error(error, "auth") from None
        raise AssertionError(f"no such method: {method}")

    async def refused(self, method: str, request: Message, token: str = "") -> AppError:
        """Call an RPC that must fail; return its error."""
        try:
            answer = await self.call(method, request, token)
        except AppError as error:
            return error
        raise AssertionError(f"{method} answered {answer}")

    async def sign_in(self, key: str = "api_key") -> auth_pb2.Tokens:
        """Exchange one of bootstrap's keys for tokens."""
        request = auth_pb2.ExchangeApiKeyRequest(api_key=self.credentials[key])
        answer: auth_pb2.ExchangeApiKeyResponse = await self.call("ExchangeApiKey", request)
        return answer.tokens

    async def token(self, key: str = "api_key") -> str:
        """An access token from one of bootstrap's keys."""
        return (await self.sign_in(key)).access_token


def auth_settings(folder: Path, database: TestDatabase, **more: Any) -> AuthSettings:
    """Settings as `echomesh up` would give them, on free ports."""
    return AuthSettings.load(
        {},
        data_dir=folder,
        public_address="127.0.0.1:0",
        mesh_address="127.0.0.1:0",
        database_url=database.app("auth"),
        database_direct_url=database.owner("auth"),
        jobs_database_url=database.jobs("auth"),
        **more,
    )


@asynccontextmanager
async def auth_world(folder: Path, database: TestDatabase) -> AsyncIterator[AuthWorld]:
    """Build, bootstrap and serve auth until the block ends."""
    clock = FakeClock()
    settings = auth_settings(folder, database)
    create_trust(settings.trust_dir, ("auth", "routing"))
    async with AsyncExitStack() as stack:
        wrapping_key = ensure_wrapping_key(settings.wrapping_key_file)
        parts = build_parts(settings, wrapping_key, stack, clock)
        bootstrap = Bootstrap(parts.store, parts.administration, parts.keyring, clock)
        credentials = await bootstrap.run(TENANT, {})
        keys = KeySet(settings.jwks_path, parts.keyring.jwks, clock)
        validator = TokenValidator(keys, clock)
        registrations = registrations_of(parts)
        server = Server(
            "auth",
            settings,
            public=registrations,
            mesh=registrations,
            validator=validator,
            verifier=AssertionVerifier("auth", load_public(settings.trust_dir), clock),
        )
        await server.start()
        stack.push_async_callback(server.stop, 0.0)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.public_bound))
        yield AuthWorld(parts, clock, database, settings, validator, credentials, channel)
