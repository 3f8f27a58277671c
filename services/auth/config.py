"""Auth's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.runtime.settings import ServiceSettings

# Validators ask for new keys every 20 s: three chances, then the new key signs.
_PUBLISH_AHEAD_S = 60


class AuthSettings(ServiceSettings):
    """Keys `ECHOMESH_AUTH_*`; what all services have is described in `ServiceSettings`."""

    model_config = SettingsConfigDict(env_prefix="ECHOMESH_AUTH_")

    jobs_database_url: SecretStr | None = Field(
        None, description="Postgres for background work across tenants; unset: nothing is pruned"
    )
    wrapping_key_file: Path = Field(
        default_factory=lambda data: data["data_dir"] / "auth" / "wrapping.key",
        description="file with the base64 of the 32 bytes that wrap signing keys (mode 0600)",
    )
    access_token_ttl_s: int = Field(
        600, ge=5, le=3600, description="seconds an access token is good for"
    )
    refresh_token_ttl_s: int = Field(
        30 * 86400, ge=60, description="seconds an unused refresh token is good for"
    )
    session_ttl_s: int = Field(
        90 * 86400, ge=60, description="seconds after which one must sign in again in any case"
    )
    key_publish_ahead_s: int = Field(
        _PUBLISH_AHEAD_S, ge=30, description="seconds from publishing a signing key to its use"
    )
    password_workers: int = Field(
        2, ge=1, le=64, description="passwords hashed at once, 19 MiB and one core each"
    )
    bootstrap_tenant: str = Field(
        "default", min_length=1, max_length=64, description="name of the tenant bootstrap makes"
    )
