"""routing's own types carry the numbers of the contract."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import pytest

from echomesh.memory.v1 import conversation_pb2
from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2
from services.routing import domain
from services.routing.convert import body_sha256

PAIRS = [
    (domain.Tier, chat_pb2.Tier, "TIER_"),
    (domain.QueryType, chat_pb2.QueryType, "QUERY_TYPE_"),
    (domain.StoreResult, chat_pb2.StoreResult, "STORE_RESULT_"),
    (domain.Stage, chat_pb2.Progress.Stage, "STAGE_"),
    (domain.FinishReason, conversation_pb2.FinishReason, "FINISH_REASON_"),
    (domain.Role, models_pb2.ChatRole, "CHAT_ROLE_"),
]


@pytest.mark.parametrize(("ours", "contract", "prefix"), PAIRS)
def test_every_enum_has_the_contracts_values(
    ours: type[IntEnum], contract: Any, prefix: str
) -> None:
    assert {f"{prefix}{member.name}": member.value for member in ours} == dict(contract.items())


def test_a_repeated_call_has_the_same_body_and_a_changed_one_has_not() -> None:
    first = chat_pb2.ChatRequest(request_id="a", conversation_id="c", text="t")
    first.metadata.update({"x": "1", "y": "2"})
    again = chat_pb2.ChatRequest(request_id="b", conversation_id="c", text="t", detach=True)
    again.metadata.update({"y": "2", "x": "1"})
    other = chat_pb2.ChatRequest(request_id="a", conversation_id="c", text="u")
    assert body_sha256(first) == body_sha256(again)
    assert body_sha256(first) != body_sha256(other)
