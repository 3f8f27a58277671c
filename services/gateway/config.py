"""The gateway's settings."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.runtime.deadline import MAX_DEADLINE_S
from services.runtime.settings import ServiceSettings, local_address

# As browsers send it: no path, no slash at its end.
Origin: TypeAlias = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]


class GatewaySettings(ServiceSettings):
    """What the gateway can be told; `ECHOMESH_GATEWAY_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="ECHOMESH_GATEWAY_")

    public_address: str = Field(
        local_address("gateway", "public"),
        description="host:port for HTTP clients (API key, TLS off loopback)",
    )
    reply_timeout_s: float = Field(
        60.0, gt=0, le=MAX_DEADLINE_S, description="seconds that one reply may take"
    )
    max_requests: int = Field(1_000, ge=1, description="requests at once; more are refused")
    max_connections: int = Field(
        4_000, ge=1, description="connections at once, kept ones too; more are closed"
    )
    cors_origins: tuple[Origin, ...] = Field(
        (),
        description='origins whose pages may call from a browser, as ["https://chat.example.com"]; '
        '["*"]: all; unset: none but the gateway\'s own',
    )
    trusted_user_headers: bool = Field(
        True,
        description="with a key of role app, X-OpenWebUI-User-Id names the end user where the "
        "body has no `user`",
    )
