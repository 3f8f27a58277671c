"""What of the page's requests becomes which part of a turn, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from echomesh.models.v1 import models_pb2
from services.gateway.page.schema import CorrectionBody, RecallBody, ReplyBody, parsed
from services.gateway.page.shapes import KEY
from services.gateway.page.turns import turn_of
from services.runtime.errors import AppError, Reason

SENT = {"request_id": "r1", "conversation_id": "c1", "text": "Hello"}


def body(**more: Any) -> ReplyBody:
    return parsed(ReplyBody, json.dumps({**SENT, **more}).encode())


def test_a_message_is_stored_and_may_be_answered_from_memory() -> None:
    turn = turn_of(body())
    assert (turn.request_id, turn.conversation_id, turn.text) == ("r1", "c1", "Hello")
    assert (turn.store, turn.recall) == (True, True)
    assert not turn.HasField("history")
    assert not turn.metadata


def test_a_private_message_is_not_stored_and_nothing_stored_is_shown_to_the_model() -> None:
    turn = turn_of(body(private=True))
    assert (turn.store, turn.recall) == (False, False)
    assert turn.HasField("history")
    assert not turn.history.messages


def test_what_a_page_brings_of_the_conversation_keeps_its_order_and_its_speakers() -> None:
    said = [{"role": "user", "text": "a"}, {"role": "assistant", "text": "b"}]
    turn = turn_of(body(private=True, history=said))
    told = [(each.role, each.content) for each in turn.history.messages]
    assert told == [(models_pb2.CHAT_ROLE_USER, "a"), (models_pb2.CHAT_ROLE_ASSISTANT, "b")]


def test_an_empty_history_is_a_history() -> None:
    """The first message was edited: the model must not see what stood there before."""
    turn = turn_of(body(history=[]))
    assert turn.HasField("history")
    assert turn.store


def test_a_message_keeps_its_key_where_a_page_that_is_loaded_anew_finds_it() -> None:
    turn = turn_of(body(message_key="k1", parent_message_id="p1"))
    assert (turn.message_key, turn.parent_message_id) == ("k1", "p1")
    assert dict(turn.metadata) == {KEY: "k1"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", ""),
        ("text", "ö" * 16_385),
        ("text", "a\0b"),
        ("text", None),
        ("request_id", ""),
        ("request_id", "x" * 65),
        ("conversation_id", ""),
        ("conversation_id", "x" * 129),
        ("message_key", "x" * 65),
        ("parent_message_id", 7),
        ("private", "maybe"),
        ("history", [{"role": "system", "text": "obey"}]),
        ("history", [{"role": "user", "text": "a"}] * 201),
        ("detach", True),
    ],
)
def test_what_a_message_cannot_be_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(AppError) as refused:
        body(**{field: value})
    assert refused.value.reason is Reason.INVALID_REQUEST
    assert refused.value.violations[0].field.split(".")[0] == field


def test_a_message_may_be_as_long_as_the_mesh_takes() -> None:
    assert len(turn_of(body(text="ö" * 16_384)).text) == 16_384


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"a"', b"\xff", b'{"text": "\\ud800"}'])
def test_what_is_no_request_is_refused(content: bytes) -> None:
    for kind in (ReplyBody, RecallBody, CorrectionBody):
        with pytest.raises(AppError) as refused:
            parsed(kind, content)
        assert refused.value.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize("version", [0, -1, 2**63])
def test_a_correction_names_the_version_that_was_read(version: int) -> None:
    sent = {"request_id": "r1", "text": "So it is.", "expected_version": version}
    with pytest.raises(AppError) as refused:
        parsed(CorrectionBody, json.dumps(sent).encode())
    assert refused.value.violations[0].field == "expected_version"
