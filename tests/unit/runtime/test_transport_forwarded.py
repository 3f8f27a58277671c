"""A token is checked when the user's call starts; what that call leads to inside may be later."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from echomesh.common.v1 import options_pb2
from services.runtime.authenticate import (
    AUTHORIZATION,
    CALLER,
    FORWARDED_PAST_EXPIRY_S,
    Authenticator,
)
from services.runtime.clock import FakeClock, SystemClock
from services.runtime.deadline import MAX_DEADLINE_S
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity, acting_as
from services.runtime.policy import Rule
from services.runtime.tokens import AssertionSigner, AssertionVerifier, KeySet, TokenValidator
from services.runtime.trust import create_trust, load_private, load_public
from tests.support.tokens import jwks, token_for
from tests.support.transport import Text, method, registration, serving

NOW = datetime(2026, 11, 21, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()
LIFE_S = 300

USER = Rule(options_pb2.ACCESS_USER)
SERVICE = Rule(options_pb2.ACCESS_SERVICE, frozenset({"routing"}))
ROLES = ("ACCESS_APP", "ACCESS_ADMIN", "ACCESS_OPERATOR")


class Listeners:
    """Both listeners of a service, a caller inside the mesh and the time."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(NOW)
        create_trust(folder, ("routing", "memory"))
        path = folder / "jwks.json"
        path.write_text(jwks(k1=KEY))
        validator = TokenValidator(KeySet(path, None, self.clock), self.clock)
        verifier = AssertionVerifier("memory", load_public(folder), self.clock)
        self.public = Authenticator(validator, None)
        self.mesh = Authenticator(validator, verifier)
        self._signer = AssertionSigner("routing", load_private(folder, "routing"), self.clock)
        roles = ["app", "admin", "operator"]
        self.token = token_for(KEY, "alice", NOW + timedelta(seconds=LIFE_S), roles=roles)

    def metadata(self, token: str = "") -> Mapping[str, str]:
        """What a call of routing carries: the user's token and a fresh assertion of its own."""
        bearer = f"Bearer {token or self.token}"
        return {AUTHORIZATION: bearer, CALLER: self._signer.sign("memory")}


@pytest.fixture
def listeners(tmp_path: Path) -> Listeners:
    return Listeners(tmp_path)


async def refusal(listener: Authenticator, rule: Rule, metadata: Mapping[str, str]) -> Reason:
    with pytest.raises(AppError) as refused:
        await listener.authenticate(rule, metadata)
    return refused.value.reason


@pytest.mark.parametrize("rule", [USER, SERVICE])
async def test_a_service_may_hand_on_a_token_for_as_long_as_a_users_call_may_last(
    listeners: Listeners, rule: Rule
) -> None:
    """The call began while the token was good, and waited in a queue since."""
    listeners.clock.advance(LIFE_S + MAX_DEADLINE_S)
    subject = await listeners.mesh.authenticate(rule, listeners.metadata())
    assert subject.identity is not None
    assert (subject.identity.user_id, subject.identity.caller) == ("alice", "routing")
    assert subject.token == listeners.token


@pytest.mark.parametrize("rule", [USER, SERVICE])
async def test_no_call_lasts_so_long_that_an_older_token_could_be_its_own(
    listeners: Listeners, rule: Rule
) -> None:
    listeners.clock.advance(LIFE_S + FORWARDED_PAST_EXPIRY_S)
    assert await refusal(listeners.mesh, rule, listeners.metadata()) is Reason.TOKEN_EXPIRED


async def test_the_public_listener_never_takes_an_expired_token(listeners: Listeners) -> None:
    """Not even with a genuine assertion beside it, nor after the mesh listener has seen it."""
    listeners.clock.advance(LIFE_S)
    await listeners.mesh.authenticate(USER, listeners.metadata())
    assert await refusal(listeners.public, USER, listeners.metadata()) is Reason.TOKEN_EXPIRED


async def test_without_a_service_that_names_itself_nothing_is_taken(listeners: Listeners) -> None:
    listeners.clock.advance(LIFE_S)
    token_alone = {AUTHORIZATION: listeners.metadata()[AUTHORIZATION]}
    assert await refusal(listeners.mesh, USER, token_alone) is Reason.CALLER_INVALID


@pytest.mark.parametrize("access", ROLES)
async def test_what_needs_a_role_needs_a_token_that_is_good_now(
    listeners: Listeners, access: str
) -> None:
    rule = Rule(options_pb2.Access.Value(access))
    await listeners.mesh.authenticate(rule, listeners.metadata())
    listeners.clock.advance(LIFE_S)
    assert await refusal(listeners.mesh, rule, listeners.metadata()) is Reason.TOKEN_EXPIRED


async def test_a_bad_signature_is_not_excused(listeners: Listeners) -> None:
    forged = token_for(Ed25519PrivateKey.generate(), "alice", NOW + timedelta(hours=1))
    metadata = listeners.metadata(forged)
    assert await refusal(listeners.mesh, USER, metadata) is Reason.TOKEN_INVALID


async def test_a_call_that_outlives_its_token_goes_on_over_the_wire(tmp_path: Path) -> None:
    """Memory answers routing, and refuses the same token of anybody outside."""

    async def echo(request: Any, context: Any) -> Any:
        return request

    path = tmp_path / "jwks.json"
    path.write_text(jwks(k1=KEY))
    clock = SystemClock()
    validator = TokenValidator(KeySet(path, None, clock), clock)
    expired = token_for(KEY, "alice", clock.now() - timedelta(seconds=60))
    assert jwt.get_unverified_header(expired)["kid"] == "k1"
    async with serving(tmp_path, registration(One=echo), validator=validator) as wire:
        async with wire.mesh() as channel:
            with acting_as(Identity("tenant-1", "alice"), expired):
                assert (await method(channel, "One")(Text(value="x"))).value == "x"
        async with wire.raw() as channel:
            with pytest.raises(grpc.aio.AioRpcError) as outside:
                bearer = ((AUTHORIZATION, f"Bearer {expired}"),)
                await method(channel, "One")(Text(value="x"), metadata=bearer)
    assert outside.value.code() is grpc.StatusCode.UNAUTHENTICATED
