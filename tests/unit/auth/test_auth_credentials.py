"""Keys, tokens, page tokens and the wrapping key: their forms and what is never accepted."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.bootstrap import read_existing, write_credentials
from services.auth.credentials import (
    SystemRandomness,
    api_key_text,
    fingerprint,
    parse_api_key,
    refresh_token_tenant,
    refresh_token_text,
)
from services.auth.paging import Cursor, decode_cursor, encode_cursor
from services.auth.wrapping import derive_key, ensure_wrapping_key, read_wrapping_key
from services.runtime.errors import AppError, Reason
from services.runtime.log_filters import redact_text


def test_an_api_key_is_read_back_and_masked_in_logs() -> None:
    """`em_<id>_<secret>` gives both parts again; a log line never shows it."""
    randomness = SystemRandomness()
    key_id, secret = randomness.key_id(), randomness.secret()
    text = api_key_text(key_id, secret)

    assert parse_api_key(text) == (key_id, secret)
    assert secret not in redact_text(f"key {text}")


def test_a_refresh_token_names_its_tenant_and_is_masked_in_logs() -> None:
    """`er_<tenant>_<secret>` tells where to look for it."""
    randomness = SystemRandomness()
    tenant, secret = randomness.new_id(), randomness.secret()
    text = refresh_token_text(tenant, secret)

    assert refresh_token_tenant(text) == tenant
    assert secret not in redact_text(f"token {text}")


@given(st.text(max_size=80))
def test_junk_is_no_key_no_token_and_no_page(text: str) -> None:
    """Anything else is refused without an exception of Python's own."""
    assert parse_api_key(text) is None
    assert refresh_token_tenant(text) is None
    if text:
        with pytest.raises(AppError) as caught:
            decode_cursor(text)
        assert caught.value.reason is Reason.INVALID_PAGE_TOKEN


def test_a_page_token_is_read_back() -> None:
    """The cursor survives its token to the microsecond; no token is the first page."""
    cursor = Cursor(datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), "row")

    assert decode_cursor(encode_cursor(cursor)) == cursor
    assert decode_cursor("") is None


def test_a_fingerprint_depends_on_key_method_and_body() -> None:
    """Each of the three changes it; the order of fields does not."""
    marks = {
        fingerprint(b"k", "CreateUser", {"a": 1, "b": 2}),
        fingerprint(b"l", "CreateUser", {"a": 1, "b": 2}),
        fingerprint(b"k", "CreateTenant", {"a": 1, "b": 2}),
        fingerprint(b"k", "CreateUser", {"a": 1, "b": 3}),
    }

    assert len(marks) == 4
    assert fingerprint(b"k", "CreateUser", {"b": 2, "a": 1}) in marks


def test_the_wrapping_key_is_made_once_and_private(tmp_path: Path) -> None:
    """A second call reads the same 32 bytes; the mode is 0600."""
    path = tmp_path / "auth" / "wrapping.key"
    key = ensure_wrapping_key(path)

    assert len(key) == 32
    assert ensure_wrapping_key(path) == read_wrapping_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["wrapping.key"]
    assert derive_key(key, "a") != derive_key(key, "b") != key


@pytest.mark.parametrize("content", [None, "", "not base64!", "c2hvcnQ="])
def test_an_unusable_wrapping_key_is_one_line(tmp_path: Path, content: str | None) -> None:
    """Missing, empty, broken and short all name the file."""
    path = tmp_path / "wrapping.key"
    if content is not None:
        path.write_text(content)

    with pytest.raises(AppError, match=r"wrapping\.key") as caught:
        read_wrapping_key(path)
    assert "\n" not in caught.value.message


def test_the_credentials_file_is_private_and_replaced_whole(tmp_path: Path) -> None:
    """Mode 0600 from the first byte; reading gives what was written."""
    path = tmp_path / "deep" / "credentials.json"
    write_credentials(path, {"api_key": "one"})
    write_credentials(path, {"api_key": "two"})

    assert read_existing(path) == {"api_key": "two"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(path.parent.iterdir())) == 1


def test_a_broken_credentials_file_is_not_overwritten(tmp_path: Path) -> None:
    """It may hold the only copy of a key: the user is told to move it away."""
    path = tmp_path / "credentials.json"
    assert read_existing(path) == {}
    for content in ("{", "[]"):
        path.write_text(content)
        with pytest.raises(AppError, match="move it away"):
            read_existing(path)
