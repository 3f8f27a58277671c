"""The settings base: typed, frozen, defaults that work on one machine, unknown keys refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from services.runtime.settings_source import COMMON_PREFIX, SettingsError, SettingsSource

__all__ = [
    "PORT_BASE",
    "TRUST_DOMAIN",
    "ServiceSettings",
    "SettingOrigin",
    "SettingsError",
    "load_or_exit",
    "local_address",
]

# Of a mesh by itself: those that share an authority each take another.
TRUST_DOMAIN = "echomesh"
# First port of a local mesh; `echomesh up --port-base` moves them all.
PORT_BASE = 7400
# Routing comes first: its public port is the one an SDK is given.
_SERVICES = ("routing", "auth", "memory", "models", "embeddings", "gateway")
# Each listener kind has a block of ten ports, one for each service.
_LISTENERS = {"public": 0, "mesh": 10, "metrics": 20}
# sysexits.h EX_CONFIG: a supervisor need not try again.
_EXIT_CONFIG = 78


def local_address(service: str, listener: str = "mesh", port_base: int = PORT_BASE) -> str:
    """Return `127.0.0.1:port` of a service's listener (public, mesh, metrics) on one machine."""
    return f"127.0.0.1:{port_base + _LISTENERS[listener] + _SERVICES.index(service)}"


def _local_target(service: str) -> str:
    return f"ipv4:{local_address(service)}"


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "echomesh"


@dataclass(frozen=True)
class SettingOrigin:
    """One line of `echomesh config`; secrets are masked; origin: `default`, `env K`, `file P`."""

    name: str
    value: str
    origin: str
    description: str


class ServiceSettings(BaseSettings):
    """What every service can be told.

    A service subclasses it in its `config.py`:

        class AuthSettings(ServiceSettings):
            model_config = SettingsConfigDict(env_prefix="ECHOMESH_AUTH_")
            access_token_ttl_s: int = Field(600, description="...")

    Read it with `load()`. A field of this class may be set for one service or, by the shorter
    key `ECHOMESH_<FIELD>`, for all; a subclass's own fields only with its prefix.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=COMMON_PREFIX, validate_default=False
    )

    public_address: str | None = Field(
        None, description="host:port for SDKs (token, TLS off loopback); unset: no such listener"
    )
    mesh_address: str | None = Field(None, description="host:port for other services of the mesh")
    health_address: str | None = Field(
        None, description="host:port for health alone, never TLS: for Kubernetes' probes"
    )
    drain_s: float = Field(
        1.0, ge=0, description="seconds from saying NOT_SERVING to refusing new connections"
    )
    stop_grace_s: float = Field(
        10.0, ge=0, description="seconds that running calls get to end when the service stops"
    )
    connection_age_s: float | None = Field(
        None,
        ge=1,
        description="seconds after which clients are asked to connect anew, and so find new "
        "replicas; unset: never",
    )
    public_tls_cert: Path | None = Field(
        None, description="PEM certificate chain of the public listener, read again on change"
    )
    public_tls_key: Path | None = Field(
        None, description="PEM private key of the public listener; set with the certificate"
    )
    public_plaintext: bool = Field(
        False, description="public listener off loopback without TLS: something in front speaks it"
    )
    mesh_tls_dir: Path | None = Field(
        None,
        description="folder of tls.crt, tls.key and ca.crt for mutual TLS between services, read"
        " again on change; unset: plain text",
    )
    mesh_trust_domain: str = Field(
        TRUST_DOMAIN,
        min_length=1,
        max_length=255,
        pattern=r"^[a-z0-9._-]+$",
        description="whose services may call and be called: certificates name SERVICE.DOMAIN and"
        " spiffe://DOMAIN/SERVICE",
    )
    reflection: bool = Field(False, description="describe the gRPC services to tools (grpcurl)")
    channelz: bool = Field(False, description="serve channelz on the mesh listener")
    metrics_address: str | None = Field(
        None, description="host:port for Prometheus' /metrics; unset: none"
    )
    data_dir: Path = Field(
        default_factory=_default_data_dir, description="folder that holds the mesh's files"
    )
    trust_dir: Path = Field(
        default_factory=lambda data: data["data_dir"] / "trust",
        description="folder of the services' assertion keys",
    )
    jwks_path: Path = Field(
        default_factory=lambda data: data["data_dir"] / "jwks.json",
        description="file that keeps auth's public keys for when auth is away",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severity that is written"
    )
    log_format: Literal["auto", "json", "pretty"] = Field(
        "auto", description="auto: pretty on a terminal, JSON elsewhere"
    )
    log_file: Path | None = Field(None, description="also write JSON logs here, rotated")
    otlp_endpoint: str | None = Field(
        None, description="address of an OTLP gRPC trace collector; unset: no traces leave"
    )
    auth_target: str = Field(_local_target("auth"), description="gRPC target of auth")
    embeddings_target: str = Field(
        _local_target("embeddings"), description="gRPC target of embeddings"
    )
    memory_target: str = Field(_local_target("memory"), description="gRPC target of memory")
    models_target: str = Field(_local_target("models"), description="gRPC target of models")
    routing_target: str = Field(_local_target("routing"), description="gRPC target of routing")
    database_url: SecretStr | None = Field(
        None, description="Postgres for requests; may go through PgBouncer in transaction mode"
    )
    database_direct_url: SecretStr | None = Field(
        None, description="Postgres itself, for migrations and LISTEN"
    )
    database_wait_s: float = Field(
        0.0, ge=0, description="seconds that `migrate` waits for Postgres and the owner's role"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments only: `load` is the one place that reads the environment."""
        return (init_settings,)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Read environment and file; `overrides` win. Raises `SettingsError` with one line."""
        found = cls._source(environ).collect()
        values = {name: hit.value for name, hit in found.items()} | overrides
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = str(first["loc"][0]) if first["loc"] else "settings"
            place = found[name].origin if name in found else name
            raise SettingsError(f"{place}: {name}: {first['msg']}") from error

    def origins(self, environ: Mapping[str, str] | None = None) -> list[SettingOrigin]:
        """Return every setting in force with where it came from, for `echomesh config`."""
        found = self._source(environ).collect()
        return [
            SettingOrigin(
                name=name,
                value=_shown(getattr(self, name)),
                origin=found[name].origin if name in found else "default",
                description=field.description or "",
            )
            for name, field in type(self).model_fields.items()
        ]

    @classmethod
    def _source(cls, environ: Mapping[str, str] | None) -> SettingsSource:
        env = os.environ if environ is None else environ
        prefix = str(cls.model_config.get("env_prefix") or COMMON_PREFIX)
        return SettingsSource(cls.model_fields, set(ServiceSettings.model_fields), prefix, env)


S = TypeVar("S", bound=ServiceSettings)


def _shown(value: Any) -> str:
    """Return `value` as text; a SecretStr shows itself as stars."""
    return "" if value is None else str(value)


def load_or_exit(settings_cls: type[S]) -> S:
    """Load the settings of a process, or end it with one line on standard error (status 78)."""
    try:
        return settings_cls.load()
    except SettingsError as error:
        sys.stderr.write(f"echomesh: {error}\n")
        raise SystemExit(_EXIT_CONFIG) from error
