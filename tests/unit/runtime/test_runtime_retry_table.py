"""What gRPC itself may send again, for every RPC of the mesh."""

from __future__ import annotations

import json

import pytest

from echomesh.auth.v1 import admin_pb2, auth_pb2
from echomesh.common.v1.options_pb2 import retry
from echomesh.embeddings.v1 import embeddings_pb2
from echomesh.memory.v1 import conversation_pb2, memory_pb2
from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2, routing_pb2
from services.runtime.retry import service_config

FILES = {
    "auth": (auth_pb2, admin_pb2),
    "embeddings": (embeddings_pb2,),
    "memory": (conversation_pb2, memory_pb2),
    "models": (models_pb2,),
    "routing": (chat_pb2, routing_pb2),
}


@pytest.mark.parametrize("target", FILES)
def test_no_call_is_repeated_that_its_proto_does_not_call_idempotent(target: str) -> None:
    services = [s for f in FILES[target] for s in f.DESCRIPTOR.services_by_name.values()]
    methods = [method for service in services for method in service.methods]
    repeatable = {m.name for m in methods if m.GetOptions().Extensions[retry].idempotent}
    config = json.loads(service_config(target))
    repeated = {entry["name"][0]["method"] for entry in config["methodConfig"]}
    assert repeated <= repeatable


def test_a_login_that_may_have_been_counted_is_not_sent_again() -> None:
    assert "Login" not in service_config("auth")
