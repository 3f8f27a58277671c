"""TLS of the HTTP listener; a changed certificate is used from the next handshake on."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

from services.gateway.config import GatewaySettings
from services.runtime.certificate_files import CertificateFiles
from services.runtime.errors import AppError, Reason
from services.runtime.tls import is_loopback


def context_of(settings: GatewaySettings) -> ssl.SSLContext | None:
    """The TLS context that the settings name; None: plain text, on loopback alone.

    Raises AppError in one line if the files cannot be read, only one of them is set, or there are
    none for an address that others than this machine can reach.
    """
    cert, key = settings.public_tls_cert, settings.public_tls_key
    if cert is None and key is None:
        if not (is_loopback(settings.public_address) or settings.public_plaintext):
            text = (
                f"API keys would cross the network in the clear on {settings.public_address}: set "
                "public_tls_cert and public_tls_key, or public_plaintext where something in front "
                "speaks TLS"
            )
            raise AppError(Reason.INTERNAL, f"gateway: {text}")
        return None
    if cert is None or key is None:
        raise AppError(Reason.INTERNAL, "public_tls_cert and public_tls_key belong together")
    return _Renewed(cert, key).context()


class _Renewed:
    """A certificate and its key on disk, which are replaced while we run."""

    def __init__(self, cert: Path, key: Path) -> None:
        self._paths = cert, key
        self._files = CertificateFiles(cert, key)
        self._newest, self._is_newest = self._load(), True

    def context(self) -> ssl.SSLContext:
        """A context that looks at the files at each handshake."""
        # A context's own certificate could be replaced too, but not its key and chain at once.
        first = self._newest
        first.sni_callback = self._at_handshake
        return first

    def _at_handshake(self, connection: ssl.SSLObject, _name: str | None, _old: Any) -> None:
        """Give a handshake the certificate as it is now; half replaced, the last good one."""
        if self._files.fresh() is not None:
            self._is_newest = False
        if not self._is_newest:
            # Replaced once more since we read it: the next handshake loads it.
            with suppress(AppError):
                self._newest, self._is_newest = self._load(), True
        connection.context = self._newest

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(*self._paths)
        except (OSError, ssl.SSLError) as error:
            text = f"{self._paths[0]}: {error.strerror or error}"
            raise AppError(Reason.INTERNAL, text) from None
        return context
