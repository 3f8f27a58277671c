"""What a local mesh looks like: folders, ports, and each service's environment. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.runtime.roles import RoleDsns
from services.runtime.settings import TRUST_DOMAIN, local_address

# In the order of starting: each needs at most those before it to do its work.
SERVICES = ("auth", "embeddings", "memory", "models", "routing", "gateway")
# Client-facing services have a public gRPC listener.
PUBLIC = ("auth", "memory", "routing")
# What listens for HTTP, and is called by no other service.
GATEWAY = "gateway"
CALLED = tuple(name for name in SERVICES if name != GATEWAY)
# Services that keep something in Postgres.
WITH_DATABASE = ("auth", "memory")
# Rises when a data folder of an older release can no longer be used as it is.
FORMAT = 1


@dataclass(frozen=True)
class Layout:
    """Where things lie in a data folder."""

    data: Path

    @property
    def lock(self) -> Path:
        """Held by the running `echomesh up`."""
        return self.data / "lock"

    @property
    def format(self) -> Path:
        """The format's number, so that a newer folder is not opened by older code."""
        return self.data / "format"

    @property
    def trust(self) -> Path:
        """The services' assertion keys."""
        return self.data / "trust"

    @property
    def certs(self) -> Path:
        """An authority and the services' certificates; while it is there, TLS is mutual."""
        return self.data / "certs"

    @property
    def cli_certs(self) -> Path:
        """By which commands ask services for their health."""
        return self.certs / "cli"

    @property
    def logs(self) -> Path:
        """One rotated log for each service."""
        return self.data / "logs"

    @property
    def postgres(self) -> Path:
        """The embedded server's folder."""
        return self.data / "postgres"

    @property
    def mesh_file(self) -> Path:
        """By which commands find the running mesh."""
        return self.data / "mesh.json"

    @property
    def credentials(self) -> Path:
        """The first keys, mode 0600."""
        return self.data / "credentials.json"


@dataclass(frozen=True)
class Plan:
    """A local mesh before it starts."""

    layout: Layout
    port_base: int
    openai_url: str = ""
    openai_model: str = ""
    model_file: Path | None = None
    # Whether services speak mutual TLS, with certificates that are there.
    mutual_tls: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)

    def address(self, service: str, listener: str) -> str:
        """host:port of a listener."""
        return local_address(service, listener, self.port_base)

    def addresses(self) -> list[str]:
        """Every address that this mesh will listen on."""
        found = [self.address(s, kind) for s in SERVICES for kind in ("mesh", "metrics")]
        return found + [self.address(s, "public") for s in (*PUBLIC, GATEWAY)]

    @property
    def http_url(self) -> str:
        """Where HTTP clients find the mesh."""
        return f"http://{self.address(GATEWAY, 'public')}"

    def environment(self, service: str, dsns: Mapping[str, RoleDsns]) -> dict[str, str]:
        """The settings of one service, by the keys its own settings class reads."""
        own = f"ECHOMESH_{service.upper()}_"
        values = {
            f"{own}MESH_ADDRESS": self.address(service, "mesh"),
            f"{own}METRICS_ADDRESS": self.address(service, "metrics"),
            f"{own}LOG_FILE": str(self.layout.logs / f"{service}.log"),
            "ECHOMESH_DATA_DIR": str(self.layout.data),
            "ECHOMESH_LOG_FORMAT": "json",
            # Small products are slower when two cores share them out among threads.
            "OPENBLAS_NUM_THREADS": "1",
        }
        if self.mutual_tls:
            values[f"{own}MESH_TLS_DIR"] = str(self.layout.certs / service)
            values[f"{own}MESH_TRUST_DOMAIN"] = TRUST_DOMAIN
        if service in (*PUBLIC, GATEWAY):
            values[f"{own}PUBLIC_ADDRESS"] = self.address(service, "public")
        for peer in CALLED:
            values[f"ECHOMESH_{peer.upper()}_TARGET"] = f"ipv4:{self.address(peer, 'mesh')}"
        return {
            **values,
            **self._database(service, own, dsns),
            **self._special(service),
            **self.extra,
        }

    def _database(self, service: str, own: str, dsns: Mapping[str, RoleDsns]) -> dict[str, str]:
        if service not in WITH_DATABASE or service not in dsns:
            return {}
        mine = dsns[service]
        return {
            f"{own}DATABASE_URL": mine.app,
            # Migrations have run: a service itself needs no more than its jobs do (LISTEN).
            f"{own}DATABASE_DIRECT_URL": mine.jobs,
            f"{own}JOBS_DATABASE_URL": mine.jobs,
        }

    def _special(self, service: str) -> dict[str, str]:
        if service == "routing":
            return {
                f"ECHOMESH_ROUTING_{peer.upper()}_ENDPOINT": self.address(peer, "public")
                for peer in PUBLIC
            }
        return self._language_model() if service == "models" else {}

    def _language_model(self) -> dict[str, str]:
        values = {}
        if self.openai_url:
            upstream = {"url": self.openai_url, "model": self.openai_model}
            values["ECHOMESH_MODELS_UPSTREAMS"] = json.dumps([upstream])
        if self.model_file:
            model = {"engine": "llamacpp", "path": str(self.model_file)}
            values["ECHOMESH_MODELS_ENGINES"] = json.dumps([model])
        return values
