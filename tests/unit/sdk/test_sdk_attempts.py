"""Which failed calls the SDK sends again."""

from __future__ import annotations

import grpc
import pytest

import echomesh
from echomesh._session import Attempts, Deadline, Transport
from echomesh.auth.v1 import admin_pb2, auth_pb2
from echomesh.memory.v1 import memory_pb2

LOST = echomesh.EchomeshError(grpc.StatusCode.UNAVAILABLE, "the connection broke")
AWAY = echomesh.EchomeshError(
    grpc.StatusCode.UNAVAILABLE, "away", reason="DEPENDENCY_UNAVAILABLE", retry_after=0.0
)


def _attempts(file: object, service: str, method: str) -> Attempts:
    descriptor = file.DESCRIPTOR.services_by_name[service]  # type: ignore[attr-defined]
    return Attempts(descriptor.methods_by_name[method], Deadline(30))


@pytest.mark.parametrize("error", [LOST, AWAY], ids=["lost", "away"])
@pytest.mark.parametrize(
    ("file", "service", "method"),
    [(auth_pb2, "AuthService", "Login"), (admin_pb2, "AdminService", "CreateApiKey")],
    ids=["Login", "CreateApiKey"],
)
async def test_a_call_that_may_have_been_done_is_not_sent_again(
    file: object, service: str, method: str, error: echomesh.EchomeshError
) -> None:
    transport = Transport("127.0.0.1:1", None)
    with pytest.raises(echomesh.EchomeshError) as given_up:
        await _attempts(file, service, method).after(error, transport, None)
    assert given_up.value is error


async def test_an_idempotent_call_is_sent_again_as_often_as_its_proto_says() -> None:
    transport = Transport("127.0.0.1:1", None)
    attempts = _attempts(memory_pb2, "MemoryService", "Recall")
    made = 1
    with pytest.raises(echomesh.EchomeshError):
        while made < 20:
            await attempts.after(AWAY, transport, None)
            made += 1
    assert 1 < made <= 5
