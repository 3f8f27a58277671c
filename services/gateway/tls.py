"""TLS of the HTTP listener; a changed certificate is used from the next handshake on."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from services.gateway.config import GatewaySettings
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
    return _Files(cert, key).context()


class _Files:
    """A certificate and its key on disk."""

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert, self._key = cert, key
        self._seen, self._newest = self._stamps(), self._load()

    def context(self) -> ssl.SSLContext:
        """A context that looks at the files at each handshake."""
        # A context's own certificate could be replaced too, but not its key and chain at once.
        first = self._newest
        first.sni_callback = self._at_handshake
        return first

    def _at_handshake(self, connection: ssl.SSLObject, _name: str | None, _old: Any) -> None:
        """Give a handshake the certificate as it is now; half replaced, the last good one."""
        try:
            stamps = self._stamps()
            if stamps != self._seen:
                self._newest = self._load()
                self._seen = stamps
        except AppError:
            pass  # half replaced: the next handshake looks again
        connection.context = self._newest

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._cert, self._key)
        except (OSError, ssl.SSLError) as error:
            raise AppError(Reason.INTERNAL, f"{self._cert}: {error.strerror or error}") from None
        return context

    def _stamps(self) -> tuple[int, int]:
        try:
            return self._cert.stat().st_mtime_ns, self._key.stat().st_mtime_ns
        except OSError as error:
            raise AppError(Reason.INTERNAL, f"{error.filename}: {error.strerror}") from None
