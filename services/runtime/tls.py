"""TLS of the public listener; a changed certificate is used from the next handshake on."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import grpc

from services.runtime.errors import AppError, Reason
from services.runtime.settings import ServiceSettings


def public_credentials(settings: ServiceSettings) -> grpc.ServerCredentials | None:
    """The credentials that the settings name; None: plain text, which SDKs accept on loopback.

    Raises AppError in one line if the files cannot be read, only one of them is set, or there are
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
    return _Files(cert, key).credentials()


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


class _Files:
    """A certificate and its key on disk."""

    def __init__(self, cert: Path, key: Path) -> None:
        self._paths = (cert, key)
        self._seen: tuple[int, int] = self._stamps()

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that look at the files at each handshake."""
        first = self._read()
        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            first,
            self._changed,  # type: ignore[arg-type]  # None is allowed: keep the one in use
            require_client_authentication=False,
        )
        return credentials

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new certificate, or None to keep the one in use."""
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return None
            fresh = self._read()
        except AppError:
            # Half replaced: the next handshake looks again.
            return None
        self._seen = stamps
        return fresh

    def _stamps(self) -> tuple[int, int]:
        cert, key = self._paths
        try:
            return cert.stat().st_mtime_ns, key.stat().st_mtime_ns
        except OSError as error:
            raise AppError(Reason.INTERNAL, f"{error.filename}: {error.strerror}") from None

    def _read(self) -> grpc.ServerCertificateConfiguration:
        cert, key = self._paths
        try:
            pair = (key.read_bytes(), cert.read_bytes())
        except OSError as error:
            raise AppError(Reason.INTERNAL, f"{error.filename}: {error.strerror}") from None
        return grpc.ssl_server_certificate_configuration([pair])
