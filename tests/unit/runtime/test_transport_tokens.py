"""Which tokens and assertions count, and that nothing else does."""

from __future__ import annotations

import base64
import json
import math
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.runtime.clock import FakeClock
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity
from services.runtime.tokens import (
    AssertionSigner,
    AssertionVerifier,
    KeySet,
    TokenValidator,
)
from services.runtime.trust import create_trust, load_private, load_public

NOW = datetime(2026, 11, 21, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()


def jwks(**keys: Ed25519PrivateKey) -> str:
    """A key set as auth publishes it."""
    return json.dumps(
        {
            "keys": [
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "kid": kid,
                    "x": base64.urlsafe_b64encode(key.public_key().public_bytes_raw())
                    .rstrip(b"=")
                    .decode(),
                }
                for kid, key in keys.items()
            ]
        }
    )


def token(key: Any = KEY, kid: str = "k1", algorithm: str = "EdDSA", **changes: Any) -> str:
    claims = {
        "iss": "echomesh-auth",
        "aud": "echomesh",
        "sub": "alice",
        "tid": "tenant-1",
        "roles": ["user"],
        "iat": int(NOW.timestamp()),
        "exp": int((NOW + timedelta(minutes=10)).timestamp()),
    }
    return jwt.encode(claims | changes, key, algorithm=algorithm, headers={"kid": kid})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def validator(tmp_path: Path, clock: FakeClock) -> TokenValidator:
    path = tmp_path / "jwks.json"
    path.write_text(jwks(k1=KEY))
    return TokenValidator(KeySet(path, None, clock), clock)


async def test_a_good_token_gives_its_identity(validator: TokenValidator) -> None:
    identity = await validator.validate(token())
    assert (identity.tenant_id, identity.user_id) == ("tenant-1", "alice")
    assert identity.roles == {"user"}


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(lambda: token(OTHER), id="signed with another key"),
        pytest.param(lambda: token(kid="k9"), id="unknown key id"),
        pytest.param(lambda: token("", algorithm="none"), id="algorithm none"),
        pytest.param(lambda: token("s" * 32, algorithm="HS256"), id="symmetric algorithm"),
        pytest.param(lambda: token(aud="elsewhere"), id="another audience"),
        pytest.param(lambda: token(iss="somebody"), id="another issuer"),
        pytest.param(lambda: token(tid=None), id="a tenant that is no text"),
        pytest.param(lambda: token(exp="tomorrow"), id="an expiry that is no number"),
        pytest.param(lambda: token(exp=math.nan), id="an expiry that is never past"),
        pytest.param(lambda: token(exp=math.inf), id="an expiry that never comes"),
        pytest.param(lambda: token(exp=10**400), id="an expiry beyond all numbers"),
        pytest.param(lambda: token(roles=7), id="roles that are no list"),
        pytest.param(lambda: "no.token.atall", id="junk"),
        pytest.param(lambda: token()[:-4] + "AAAA", id="altered signature"),
    ],
)
async def test_a_bad_token_is_invalid(validator: TokenValidator, bad: Any) -> None:
    with pytest.raises(AppError) as refused:
        await validator.validate(bad())
    assert refused.value.reason is Reason.TOKEN_INVALID


async def test_a_token_expires_although_it_was_cached(
    validator: TokenValidator, clock: FakeClock
) -> None:
    good = token()
    await validator.validate(good)
    clock.advance(601)
    with pytest.raises(AppError) as refused:
        await validator.validate(good)
    assert refused.value.reason is Reason.TOKEN_EXPIRED


async def test_a_token_that_was_taken_is_refused_once_its_key_is_gone(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Whoever stole the key may have sent a token that lasts for years while it was good."""
    published = [jwks(k1=KEY), jwks(k2=OTHER)]

    async def fetch() -> str:
        return published[0]

    keys = KeySet(tmp_path / "jwks.json", fetch, clock)
    validator = TokenValidator(keys, clock)
    stolen = token(exp=4_000_000_000)
    await validator.validate(stolen)
    published.pop(0)
    clock.advance(20)
    await keys.refresh()

    with pytest.raises(AppError) as refused:
        await validator.validate(stolen)
    assert refused.value.reason is Reason.TOKEN_INVALID


async def test_a_new_signing_key_is_fetched_kept_on_disk_and_works_while_auth_is_away(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(jwks(k1=KEY))
    answers = [jwks(k1=KEY, k2=OTHER)]

    async def fetch() -> str:
        if not answers:
            raise AppError(Reason.DEPENDENCY_UNAVAILABLE, "auth is away")
        return answers.pop()

    validator = TokenValidator(KeySet(path, fetch, clock), clock)
    assert (await validator.validate(token(OTHER, kid="k2"))).user_id == "alice"
    assert (await validator.validate(token())).user_id == "alice"
    later = TokenValidator(KeySet(path, fetch, clock), clock)
    assert (await later.validate(token(OTHER, kid="k2"))).user_id == "alice"


async def test_keys_that_could_not_be_saved_are_kept_while_auth_is_away(
    tmp_path: Path, clock: FakeClock
) -> None:
    """On a full disk the file is older than what is known."""
    answers = [jwks(k1=KEY, k2=OTHER)]

    async def fetch() -> str:
        if not answers:
            raise AppError(Reason.DEPENDENCY_UNAVAILABLE, "auth is away")
        return answers.pop()

    path = tmp_path / "jwks.json"
    path.write_text(jwks(k1=KEY))
    keys = KeySet(path, fetch, clock)
    await keys.refresh()
    path.write_text(jwks(k1=KEY))
    clock.advance(30)
    await keys.refresh()
    validator = TokenValidator(keys, clock)
    assert (await validator.validate(token(OTHER, kid="k2"))).user_id == "alice"
    assert (await validator.validate(token())).user_id == "alice"


async def test_without_any_key_auth_is_away_and_the_token_is_not_blamed(
    tmp_path: Path, clock: FakeClock
) -> None:
    async def fetch() -> str:
        raise AppError(Reason.DEPENDENCY_UNAVAILABLE, "auth is away")

    validator = TokenValidator(KeySet(tmp_path / "jwks.json", fetch, clock), clock)
    with pytest.raises(AppError) as refused:
        await validator.validate(token())
    assert refused.value.reason is Reason.DEPENDENCY_UNAVAILABLE


@pytest.mark.parametrize("answer", ["no json", "[]", '{"keys": [{"kty": "OKP"}]}'])
async def test_a_key_set_that_is_nonsense_changes_nothing(
    tmp_path: Path, clock: FakeClock, answer: str
) -> None:
    async def fetch() -> str:
        return answer

    path = tmp_path / "jwks.json"
    path.write_text(jwks(k1=KEY))
    keys = KeySet(path, fetch, clock)
    await keys.refresh()
    assert (await TokenValidator(keys, clock).validate(token())).user_id == "alice"
    assert path.read_text() == jwks(k1=KEY)


async def test_junk_key_ids_do_not_hammer_auth(tmp_path: Path, clock: FakeClock) -> None:
    asked = 0

    async def fetch() -> str:
        nonlocal asked
        asked += 1
        return jwks(k1=KEY)

    validator = TokenValidator(KeySet(tmp_path / "jwks.json", fetch, clock), clock)
    for i in range(50):
        with pytest.raises(AppError):
            await validator.validate(token(kid=f"junk-{i}"))
    assert asked == 1


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    create_trust(tmp_path, ("routing", "memory"))
    return tmp_path


def test_an_assertion_names_caller_and_subject_for_one_audience(
    trust: Path, clock: FakeClock
) -> None:
    signer = AssertionSigner("routing", load_private(trust, "routing"), clock)
    memory = AssertionVerifier("memory", load_public(trust), clock)
    routing = AssertionVerifier("routing", load_public(trust), clock)
    assertion = signer.sign("memory", Identity("tenant-1", "alice"))
    found = memory.verify(assertion)
    assert (found.caller, found.tenant_id, found.user_id) == ("routing", "tenant-1", "alice")
    with pytest.raises(AppError):
        routing.verify(assertion)


def test_an_assertion_lasts_a_minute_and_none_is_cached_for_another_subject(
    trust: Path, clock: FakeClock
) -> None:
    signer = AssertionSigner("routing", load_private(trust, "routing"), clock)
    verifier = AssertionVerifier("memory", load_public(trust), clock)
    alice = signer.sign("memory", Identity("t", "alice"))
    assert signer.sign("memory", Identity("t", "bob")) != alice
    verifier.verify(alice)
    clock.advance(66)
    with pytest.raises(AppError) as late:
        verifier.verify(alice)
    assert late.value.reason is Reason.CALLER_INVALID


def test_an_assertion_that_would_last_longer_is_refused(trust: Path, clock: FakeClock) -> None:
    key = load_private(trust, "routing")
    lasting = {"iss": "routing", "aud": "memory", "exp": int(NOW.timestamp()) + 3600}
    verifier = AssertionVerifier("memory", load_public(trust), clock)
    with pytest.raises(AppError) as refused:
        verifier.verify(jwt.encode(lasting, key, algorithm="EdDSA"))
    assert refused.value.reason is Reason.CALLER_INVALID


def test_a_service_cannot_pose_as_another(trust: Path, clock: FakeClock) -> None:
    posing = AssertionSigner("memory", load_private(trust, "routing"), clock)
    with pytest.raises(AppError):
        AssertionVerifier("embeddings", load_public(trust), clock).verify(posing.sign("embeddings"))


def test_private_keys_are_readable_by_their_owner_alone_and_are_made_once(trust: Path) -> None:
    before = (trust / "routing.key").read_bytes()
    create_trust(trust, ("routing", "memory"))
    assert (trust / "routing.key").read_bytes() == before
    assert stat.S_IMODE((trust / "routing.key").stat().st_mode) == 0o600
