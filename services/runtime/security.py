"""A service's means to check its callers and to name itself, from its settings."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from echomesh.auth.v1 import auth_pb2, auth_pb2_grpc
from services.runtime.channel import ChannelFactory
from services.runtime.clock import Clock, SystemClock
from services.runtime.deadline import deadline_scope
from services.runtime.server import background
from services.runtime.settings import ServiceSettings
from services.runtime.tokens import (
    AssertionSigner,
    AssertionVerifier,
    FetchJwks,
    KeySet,
    TokenValidator,
)
from services.runtime.trust import load_private, load_public

_FETCH_S = 2.0


@dataclass(frozen=True)
class Security:
    """What every composition root needs to build its server and its channels."""

    channels: ChannelFactory
    validator: TokenValidator
    verifier: AssertionVerifier
    signer: AssertionSigner


async def open_security(
    name: str,
    settings: ServiceSettings,
    stack: AsyncExitStack,
    *,
    fetch: FetchJwks | None = None,
    clock: Clock | None = None,
) -> Security:
    """Load the trust folder and the kept JWKS, and keep the keys fresh.

    `fetch` replaces asking the auth service (auth itself reads its own tables).
    """
    clock = clock or SystemClock()
    signer = AssertionSigner(name, load_private(settings.trust_dir, name), clock)
    channels = ChannelFactory(settings, signer)
    stack.push_async_callback(channels.close)
    keys = KeySet(settings.jwks_path, fetch or _from_auth(channels), clock)
    await background(stack, keys.keep_fresh())
    verifier = AssertionVerifier(name, load_public(settings.trust_dir), clock)
    return Security(channels, TokenValidator(keys, clock), verifier, signer)


def _from_auth(channels: ChannelFactory) -> FetchJwks:
    stub = auth_pb2_grpc.AuthServiceStub(channels.channel("auth"))

    async def fetch() -> str:
        with deadline_scope(_FETCH_S, extend=True):
            answer = await stub.GetJwks(auth_pb2.GetJwksRequest())
        return str(answer.jwks_json)

    return fetch
