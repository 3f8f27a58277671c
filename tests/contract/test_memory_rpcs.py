"""The memory service answers every RPC of its contract."""

from __future__ import annotations

import inspect

import pytest

from echomesh.memory.v1 import conversation_pb2, memory_pb2
from services.memory.conversation_service import ConversationServicer
from services.memory.memory_service import MemoryServicer

SERVICES = [
    (conversation_pb2.DESCRIPTOR.services_by_name["ConversationService"], ConversationServicer),
    (memory_pb2.DESCRIPTOR.services_by_name["MemoryService"], MemoryServicer),
]


@pytest.mark.parametrize(
    ("servicer", "method"),
    [(servicer, method.name) for service, servicer in SERVICES for method in service.methods],
)
def test_memory_every_rpc_is_implemented(servicer: type, method: str) -> None:
    implementation = vars(servicer).get(method)
    assert inspect.iscoroutinefunction(implementation), f"{method} would be UNIMPLEMENTED"
