"""TLS of the listeners and between services; a changed certificate is used from then on.

Public listeners show a certificate. On mesh listeners both sides do (mutual TLS), and the service
that a caller's certificate names must be the one that its assertion names. A certificate carries
the DNS name `<service>.<trust domain>`, which clients check, and a SPIFFE id, which servers check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import grpc

from services.runtime.certificate_files import CertificateFiles, Pem, files_in
from services.runtime.errors import AppError, Reason
from services.runtime.settings import ServiceSettings

# Set by gRPC only where the certificate has exactly one, as SPIFFE has it.
_SPIFFE_ID = "peer_spiffe_id"


def service_dns_name(trust_domain: str, service: str) -> str:
    """The name that a service's certificate must have, whatever address it is reached at.

    With the trust domain in it, since clients see no SPIFFE id: one authority may serve two meshes.
    """
    return f"{service}.{trust_domain}"


def spiffe_id(trust_domain: str, service: str) -> str:
    """The identity of a service in its certificate."""
    return f"spiffe://{trust_domain}/{service}"


def public_credentials(settings: ServiceSettings) -> grpc.ServerCredentials | None:
    """The credentials that the settings name; None: plain text, which SDKs accept on loopback.

    Raises AppError in one line if the files cannot be used, only one of them is set, or there are
    none for a listener that others than this machine can reach.
    """
    cert, key = settings.public_tls_cert, settings.public_tls_key
    if cert is None and key is None:
        address = settings.public_address or ""
        if not (is_loopback(address) or settings.public_plaintext):
            raise AppError(
                Reason.INTERNAL,
                f"tokens would cross the network in the clear on {address}: set public_tls_cert and"
                " public_tls_key, or public_plaintext where something in front speaks TLS",
            )
        return None
    if cert is None or key is None:
        raise AppError(Reason.INTERNAL, "public_tls_cert and public_tls_key belong together")
    return _server_credentials(CertificateFiles(cert, key))


def mesh_credentials(settings: ServiceSettings) -> grpc.ServerCredentials | None:
    """The credentials of the mesh listener; None: plain text. Raises AppError in one line."""
    folder = settings.mesh_tls_dir
    return None if folder is None else _server_credentials(files_in(folder))


def _server_credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """Credentials that look at the files at each handshake; with an authority, mutual ones."""

    def changed() -> grpc.ServerCertificateConfiguration | None:
        pem = files.fresh()
        return None if pem is None else _configuration(pem)

    credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
        _configuration(files.current),
        changed,  # type: ignore[arg-type]  # None is allowed: keep the one in use
        require_client_authentication=bool(files.current.authority),
    )
    return credentials


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pem.key, pem.cert)], root_certificates=pem.authority or None
    )


def channel_credentials(pem: Pem) -> grpc.ChannelCredentials:
    """What a service shows to, and asks of, the other end of a channel."""
    return grpc.ssl_channel_credentials(pem.authority, pem.key, pem.cert)


def channel_options(trust_domain: str, service: str) -> list[tuple[str, Any]]:
    """The options of a channel with TLS: the name to find in the certificate."""
    return [("grpc.ssl_target_name_override", service_dns_name(trust_domain, service))]


@dataclass(frozen=True)
class PeerPolicy:
    """Whom a caller's certificate must name, on listeners with mutual TLS."""

    trust_domain: str

    def check(self, caller: str | None, presented: Mapping[str, Any]) -> None:
        """Raise AppError CALLER_INVALID unless the certificate is that of the calling service.

        `presented` is gRPC's auth context of the call.
        """
        wanted = spiffe_id(self.trust_domain, caller) if caller else None
        if wanted is None or list(presented.get(_SPIFFE_ID, ())) != [wanted.encode()]:
            raise AppError(Reason.CALLER_INVALID, "the certificate is not the calling service's")


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches a listener at `host:port` or `unix:path`."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        # Any other name may lead anywhere, today or tomorrow.
        return host == "localhost"
