"""Signing keys: wrapped under their own id, and at every moment exactly one signs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.keyring import policy_from
from services.auth.keys import (
    RotationPolicy,
    WrongWrappingKeyError,
    jwks_at,
    new_signing_key,
    rotation_times,
    signing_key_at,
    unwrap,
)
from services.runtime.authenticate import FORWARDED_PAST_EXPIRY_S

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = RotationPolicy(timedelta(seconds=60), timedelta(seconds=600))
WRAPPING = b"w" * 32


def test_a_wrapped_key_is_its_own_key_again() -> None:
    """What was wrapped signs for the public key that is published."""
    key = new_signing_key(WRAPPING, "k1", NOW, NOW)

    assert unwrap(WRAPPING, key).public_key().public_bytes_raw() == key.public_key


def test_a_wrapped_key_opens_with_its_wrapping_key_and_id_only() -> None:
    """Another wrapping key, and a row moved under another id, are refused."""
    key = new_signing_key(WRAPPING, "k1", NOW, NOW)

    for wrapping, row in ((b"x" * 32, key), (WRAPPING, replace(key, id="k2"))):
        with pytest.raises(WrongWrappingKeyError):
            unwrap(wrapping, row)


@given(st.lists(st.integers(61, 5000), max_size=5), st.integers(0, 20000))
def test_whoever_signs_is_published_until_the_last_token_has_expired(
    pauses_s: list[int], at_s: int
) -> None:
    """At any time after any rotations there is a signer, and its key outlives its tokens."""
    keys = [new_signing_key(WRAPPING, "k0", NOW, NOW)]
    now = NOW
    for number, pause_s in enumerate(pauses_s, start=1):
        now += timedelta(seconds=pause_s)
        signs_from, retires_at = rotation_times(POLICY, now)
        keys = [replace(k, retires_at=k.retires_at or retires_at) for k in keys]
        keys.append(new_signing_key(WRAPPING, f"k{number}", now, signs_from))
    moment = NOW + timedelta(seconds=at_s)

    signer = signing_key_at(keys, moment)

    assert signer is not None
    assert signer.created_at + POLICY.publish_ahead <= moment or signer.id == "k0"
    assert f'"{signer.id}"' in jwks_at(keys, moment + POLICY.token_life)


def test_a_retired_keys_last_token_was_good_for_whom_it_was_handed_on_to() -> None:
    """Services hand tokens on past their expiry: the key is published for so long too."""
    signs_from, retires_at = rotation_times(policy_from(60, 600), NOW)

    assert retires_at >= signs_from + timedelta(seconds=600 + FORWARDED_PAST_EXPIRY_S)
