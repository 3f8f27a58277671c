"""Signing keys on a real Postgres: rotation without a refused token, and nothing unwrapped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from echomesh.auth.v1 import admin_pb2 as admin
from echomesh.auth.v1 import auth_pb2 as auth
from services.auth.keys import WrongWrappingKeyError
from services.auth.server import build_parts
from services.runtime.errors import AppError, Reason
from services.runtime.tokens import KeySet, TokenValidator
from tests.support.auth_world import AuthWorld, auth_world
from tests.support.postgres import FreshDatabase

# How often the validators of the mesh ask for keys.
REFRESH_S = 20
STEP_S = 5


@pytest_asyncio.fixture
async def world(fresh_database: FreshDatabase, tmp_path: Path) -> AsyncIterator[AuthWorld]:
    async with auth_world(tmp_path, await fresh_database("auth")) as made:
        yield made


async def _rotate(world: AuthWorld, request_id: str) -> admin.RotateSigningKeyResponse:
    request = admin.RotateSigningKeyRequest(request_id=request_id)
    answer: admin.RotateSigningKeyResponse = await world.call(
        "RotateSigningKey", request, await world.token()
    )
    return answer


async def _kids(world: AuthWorld) -> list[str]:
    answer = await world.call("GetJwks", auth.GetJwksRequest())
    return [key["kid"] for key in json.loads(answer.jwks_json)["keys"]]


class _PeriodicKeys(KeySet):
    """A validator's keys that are asked for every 20 s only, never for an unknown id."""

    async def key(self, key_id: str) -> Ed25519PublicKey | None:
        """The key as last seen."""
        return self._keys.get(key_id)


async def test_no_token_is_refused_while_a_key_is_rotated(world: AuthWorld, tmp_path: Path) -> None:
    """Any unexpired token verifies at any time before, while and after."""
    keys = _PeriodicKeys(tmp_path / "lazy.json", world.parts.keyring.jwks, world.clock)
    await keys.refresh()
    issued: list[auth.Tokens] = []
    seen_kids: set[int] = set()
    for step in range(0, 1600, STEP_S):
        if step == 100:
            await _rotate(world, "first")
        if step % REFRESH_S == 0:
            await keys.refresh()
        if step % 50 == 0:
            issued.append(await world.sign_in())
        now = world.clock.now().timestamp()
        issued = [t for t in issued if t.access_expires_at.seconds > now]
        for tokens in issued:
            await TokenValidator(keys, world.clock).validate(tokens.access_token)
        seen_kids.add(len(await _kids(world)))
        world.clock.advance(STEP_S)

    assert seen_kids == {1, 2}
    assert len(await _kids(world)) == 1


async def test_a_new_key_signs_only_after_everyone_could_know_it(world: AuthWorld) -> None:
    """It is published at once and signs from the time that the answer names."""
    (old,) = await _kids(world)
    answer = await _rotate(world, "r")
    before = await _signed_by(world)
    world.clock.advance(60)
    after = await _signed_by(world)

    assert set(await _kids(world)) == {old, answer.key_id}
    assert (before, after) == (old, answer.key_id)
    assert answer.signs_from.seconds == int(world.clock.now().timestamp())


async def _signed_by(world: AuthWorld) -> str:
    return str(jwt.get_unverified_header(await world.token())["kid"])


async def test_a_repeated_rotation_publishes_one_key(world: AuthWorld) -> None:
    """The same request_id, other ones while a key waits, and five at once: one new key."""
    answers = await asyncio.gather(*(_rotate(world, f"r{n}") for n in range(5)))
    again = await _rotate(world, "r0")
    world.clock.advance(3600)
    late = await _rotate(world, "r0")

    assert len({answer.key_id for answer in [*answers, again, late]}) == 1


async def test_keys_in_the_database_are_useless_without_the_file(world: AuthWorld) -> None:
    """Another wrapping key cannot sign; the public keys are told all the same."""
    async with AsyncExitStack() as stack:
        stranger = build_parts(world.settings, b"x" * 32, stack, world.clock)
        with pytest.raises(WrongWrappingKeyError):
            await stranger.sessions.exchange_api_key(world.credentials["api_key"])
        assert await stranger.keyring.jwks() == await world.parts.keyring.jwks()


async def test_public_keys_are_told_while_postgres_is_away(world: AuthWorld) -> None:
    """GetJwks answers from memory; what needs Postgres says that it is away."""
    before = await world.parts.keyring.jwks()
    world.clock.advance(3600)
    dead = f"{world.database.app('auth').rpartition('@')[0]}@127.0.0.1:1/none"
    world.parts.store._database._dsn = dead
    await world.parts.store._database.close()

    error = await world.refused(
        "ExchangeApiKey", auth.ExchangeApiKeyRequest(api_key=world.credentials["api_key"])
    )
    answer = await world.call("GetJwks", auth.GetJwksRequest())

    assert error.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert json.loads(answer.jwks_json) == json.loads(before)


@pytest.mark.parametrize("attack", ["none", "foreign-key", "hs256-public-key", "audience"])
async def test_forged_tokens_are_refused(world: AuthWorld, attack: str) -> None:
    """Algorithm none, a foreign key, the public key as a shared secret, another audience."""
    genuine = await world.token()
    claims = jwt.decode(genuine, options={"verify_signature": False})
    header = {"kid": jwt.get_unverified_header(genuine)["kid"]}
    own = Ed25519PrivateKey.generate()
    (public,) = [key.public_key for key in await world.parts.store.signing_keys()]
    forged = {
        "none": lambda: jwt.encode(claims, None, algorithm="none", headers=header),
        "foreign-key": lambda: jwt.encode(claims, own, algorithm="EdDSA", headers=header),
        "hs256-public-key": lambda: jwt.encode(claims, public, algorithm="HS256", headers=header),
        "audience": lambda: jwt.encode(
            claims | {"aud": "memory"}, own, algorithm="EdDSA", headers=header
        ),
    }[attack]()

    with pytest.raises(AppError) as caught:
        await world.validator.validate(forged)
    error = await world.refused("WhoAmI", auth.WhoAmIRequest(), forged)

    assert (caught.value.reason, error.reason) == (Reason.TOKEN_INVALID, Reason.TOKEN_INVALID)
