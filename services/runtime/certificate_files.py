"""A certificate, its key and the authority it trusts, as files that are replaced while we run.

The names in a folder are those of a Kubernetes TLS Secret, as cert-manager writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.runtime.errors import AppError, Reason
from services.runtime.logs import get_logger

CERT, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"
"""The files of a folder: certificate chain, private key, and whom to trust; all PEM."""


@dataclass(frozen=True)
class Pem:
    """The contents of the files, which fit together; `authority` is empty where none is asked."""

    cert: bytes
    key: bytes
    authority: bytes = b""


class CertificateFiles:
    """Files of one identity; `fresh` gives what is new in them.

    One user alone: it remembers what was given last.
    """

    def __init__(
        self, cert: Path, key: Path, authority: Path | None = None, known: Pem | None = None
    ) -> None:
        """Read the files; of no use, begin with `known` or raise AppError in one line."""
        self._paths = [path for path in (cert, key, authority) if path is not None]
        self._refused: object = None
        try:
            self._seen, self.current = self._stamps(), self._read()
        except AppError as error:
            if known is None:
                raise
            self._seen, self.current = (), known
            self._warn_once(error)

    def fresh(self) -> Pem | None:
        """What the files hold, if that is new and of use; None: go on with `current`.

        Files half replaced, or that do not fit together, are looked at again the next time.
        """
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return None
            pem = self._read()
            if stamps != self._stamps():
                return None  # replaced while we read: perhaps of two kinds
        except AppError as error:
            self._warn_once(error)
            return None
        self._seen, self._refused = stamps, None
        if pem == self.current:
            return None
        self.current = pem
        return pem

    def _warn_once(self, error: AppError) -> None:
        if self._refused != error.message:
            get_logger().warning("certificate_not_usable", error=error.message)
            self._refused = error.message

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        """What changes with a file, and with a link to another one."""
        try:
            found = [path.stat() for path in self._paths]
        except OSError as error:
            raise _unusable(f"{error.filename}: {error.strerror}") from None
        return tuple((each.st_mtime_ns, each.st_ino) for each in found)

    def _read(self) -> Pem:
        try:
            pem = Pem(*(path.read_bytes() for path in self._paths))
        except OSError as error:
            raise _unusable(f"{error.filename}: {error.strerror}") from None
        for path, wrong in zip(self._paths, _wrong(pem), strict=False):
            if wrong:
                raise _unusable(f"{path}: {wrong}")
        return pem


def files_in(folder: Path, known: Pem | None = None) -> CertificateFiles:
    """The files of a folder by their usual names; the rest is as with `CertificateFiles`."""
    return CertificateFiles(folder / CERT, folder / KEY, folder / AUTHORITY, known)


def _wrong(pem: Pem) -> tuple[str, str, str]:
    """What is wrong with each file; empty: nothing. gRPC itself would only refuse everybody.

    Of public files the last one counts for nothing: there is no such file.
    """
    # Imported here: commands load this module, and few of them see a certificate.
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        certified = x509.load_pem_x509_certificates(pem.cert)[0].public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "holds no certificate", "", ""
    try:
        key = load_pem_private_key(pem.key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "", "holds no private key without a password", ""
    if key.public_key() != certified:
        return "", "is not the key of the certificate", ""
    try:
        # An empty file is wrong too: a server that trusts nobody would ask nobody who they are.
        x509.load_pem_x509_certificates(pem.authority)
    except ValueError:
        return "", "", "holds no certificate"
    return "", "", ""


def _unusable(why: str) -> AppError:
    return AppError(Reason.INTERNAL, why)
