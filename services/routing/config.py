"""routing's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.runtime.settings import ServiceSettings, local_address

_PERSONAS = Path(__file__).parent / "personas"


class RoutingSettings(ServiceSettings):
    """What routing can be told; `ECHOMESH_ROUTING_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="ECHOMESH_ROUTING_")

    personas_dir: Path = Field(
        _PERSONAS, description="folder of persona files; default.toml is the mesh's own"
    )
    max_turns: int = Field(64, ge=1, description="turns that run at once")
    max_queued_turns: int = Field(128, ge=0, description="turns that may wait; more are refused")
    min_starting_turns: int = Field(
        4,
        ge=1,
        description="turns that may store and recall at once when memory is at its slowest; "
        "up to max_turns while it answers in time",
    )
    auth_endpoint: str = Field(
        local_address("auth", "public"),
        description="where SDKs reach auth: host:port[,host:port ...]",
    )
    memory_endpoint: str = Field(
        local_address("memory", "public"),
        description="where SDKs reach memory: host:port[,host:port ...]",
    )
    routing_endpoint: str = Field(
        local_address("routing", "public"),
        description="where SDKs reach routing: host:port[,host:port ...]",
    )
    models_instances: str = Field(
        "",
        description="models services that serve different models: host:port[,host:port ...], or "
        "kubernetes:LABEL-SELECTOR of their EndpointSlices, models_target until those are known; "
        "unset: models_target's are all alike",
    )
    traces_url: str = Field(
        "", description="where people look at traces: the Jaeger UI's address; /trace/ID is added"
    )
    endpoints_tls: bool = Field(False, description="whether those endpoints speak TLS")

    def endpoints(self) -> list[tuple[str, str, bool]]:
        """Return (gRPC service, address, TLS) of each client-facing service."""
        addresses = {
            "auth.v1.AuthService": self.auth_endpoint,
            "auth.v1.AdminService": self.auth_endpoint,
            "auth.v1.AuditService": self.auth_endpoint,
            "memory.v1.AuditService": self.memory_endpoint,
            "memory.v1.ConversationService": self.memory_endpoint,
            "memory.v1.MemoryService": self.memory_endpoint,
            "routing.v1.ChatService": self.routing_endpoint,
            "routing.v1.RoutingService": self.routing_endpoint,
            "routing.v1.MeshService": self.routing_endpoint,
        }
        return [
            (f"echomesh.{service}", address, self.endpoints_tls)
            for service, address in addresses.items()
        ]
