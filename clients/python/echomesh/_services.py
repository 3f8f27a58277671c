"""The gRPC services that the client calls: what each stub's methods are, and may be done with."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from echomesh.auth.v1 import audit_pb2 as auth_audit_pb2
from echomesh.auth.v1 import audit_pb2_grpc as auth_audit_pb2_grpc
from echomesh.auth.v1 import auth_pb2, auth_pb2_grpc
from echomesh.memory.v1 import audit_pb2 as memory_audit_pb2
from echomesh.memory.v1 import audit_pb2_grpc as memory_audit_pb2_grpc
from echomesh.memory.v1 import conversation_pb2, conversation_pb2_grpc, memory_pb2, memory_pb2_grpc
from echomesh.routing.v1 import chat_pb2, chat_pb2_grpc, routing_pb2, routing_pb2_grpc


def _described(file: Any, name: str) -> ServiceDescriptor:
    return file.DESCRIPTOR.services_by_name[name]  # type: ignore[no-any-return]


SERVICES: dict[type[Any], ServiceDescriptor] = {
    auth_pb2_grpc.AuthServiceStub: _described(auth_pb2, "AuthService"),
    auth_audit_pb2_grpc.AuditServiceStub: _described(auth_audit_pb2, "AuditService"),
    conversation_pb2_grpc.ConversationServiceStub: _described(
        conversation_pb2, "ConversationService"
    ),
    memory_pb2_grpc.MemoryServiceStub: _described(memory_pb2, "MemoryService"),
    memory_audit_pb2_grpc.AuditServiceStub: _described(memory_audit_pb2, "AuditService"),
    chat_pb2_grpc.ChatServiceStub: _described(chat_pb2, "ChatService"),
    routing_pb2_grpc.RoutingServiceStub: _described(routing_pb2, "RoutingService"),
    routing_pb2_grpc.MeshServiceStub: _described(routing_pb2, "MeshService"),
}
