"""The retry table, as gRPC's own service config, from the protos' method options.

gRPC retries what finds a server away, or stopping (CANCELLED): unary calls before any answer has
come. Streams that have begun are never tried again here, nor methods without `retry.idempotent`.
"""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.descriptor import MethodDescriptor

from echomesh.auth.v1 import admin_pb2, auth_pb2
from echomesh.common.v1.options_pb2 import Retry, retry
from echomesh.embeddings.v1 import embeddings_pb2
from echomesh.memory.v1 import conversation_pb2, memory_pb2
from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2, routing_pb2

# gRPC caps attempts at 5 whatever is asked for.
_MAX_ATTEMPTS = 5
_BACKOFF = {"initialBackoff": "0.05s", "maxBackoff": "0.5s", "backoffMultiplier": 2}
# Ten failed calls stop retries; each success earns a tenth of one back.
_THROTTLING = {"maxTokens": 10, "tokenRatio": 0.1}

_FILES = {
    "auth": (auth_pb2, admin_pb2),
    "embeddings": (embeddings_pb2,),
    "memory": (conversation_pb2, memory_pb2),
    "models": (models_pb2,),
    "routing": (chat_pb2, routing_pb2),
}


def service_config(target: str) -> str:
    """The service config (JSON) for channels to a service of the mesh."""
    config: dict[str, Any] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": target},
        "methodConfig": [_method_config(m) for m in _methods(target) if _attempts(m) > 1],
        "retryThrottling": _THROTTLING,
    }
    return json.dumps(config)


def _methods(target: str) -> list[MethodDescriptor]:
    services = [
        s for file in _FILES.get(target, ()) for s in file.DESCRIPTOR.services_by_name.values()
    ]
    return [method for service in services for method in service.methods]


def _attempts(method: MethodDescriptor) -> int:
    option: Retry = method.GetOptions().Extensions[retry]
    return min(option.max_attempts, _MAX_ATTEMPTS) if option.idempotent else 1


def _method_config(method: MethodDescriptor) -> dict[str, Any]:
    return {
        "name": [{"service": method.containing_service.full_name, "method": method.name}],
        "retryPolicy": {
            "maxAttempts": _attempts(method),
            **_BACKOFF,
            "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
        },
    }
