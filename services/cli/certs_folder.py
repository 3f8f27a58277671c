"""The certificates of a data folder: a small authority, and what it signs for mutual TLS.

    certs/ca.crt, ca.key            the authority; its key signs, and nothing else needs it
    certs/<service>/                tls.crt, tls.key and ca.crt of each service
    certs/cli/                      those by which commands ask services for their health
    certs/public/                   for public listeners, if hosts were named

A mesh that finds the folder when it starts speaks mutual TLS. Certificates may be made anew while
it is up: services take them up by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from services.cli.files import CommandError
from services.cli.plan import SERVICES
from services.runtime.certificate_files import AUTHORITY, CERT, KEY, Pem
from services.runtime.certificates import (
    Authority,
    host_certificate,
    host_names,
    new_authority,
    read_authority,
    service_certificate,
)
from services.runtime.private_files import write_private
from services.runtime.settings import TRUST_DOMAIN

_PUBLIC = "public"
_AUTHORITY_KEY = "ca.key"
# Commands have one too; it is no service's, so that it opens nothing but health.
_NAMES = (*SERVICES, "cli")
# A mesh that starts renews what has less than this part of its life left.
_RENEW_PART = 3
DEFAULT_LIFE = timedelta(days=90)
"""Short enough that nobody forgets how they are renewed."""


@dataclass(frozen=True)
class Certs:
    """The folder of certificates of a data folder."""

    folder: Path

    def make(self, now: datetime, life: timedelta, hosts: Sequence[str] = ()) -> datetime:
        """Make new certificates, and the authority if there is none; return when they end.

        Without `hosts` the public one, if any, keeps its own. Raises CommandError if the authority
        cannot be read or has ended.
        """
        authority = self._authority(now)
        life = min(life, authority.certificate.not_valid_after_utc - now)
        for name in _NAMES:
            self._lay(name, service_certificate(authority, name, TRUST_DOMAIN, now, life))
        hosts = hosts or self._hosts()
        if hosts:
            self._lay(_PUBLIC, host_certificate(authority, hosts, now, life))
        return now + life

    def renew(self, now: datetime) -> bool:
        """Make what is missing or ends soon; whether there was any. Raises CommandError."""
        public = (_PUBLIC,) if self._hosts() else ()
        if all(self._is_good(name, now) for name in (*_NAMES, *public)):
            return False
        self.make(now, DEFAULT_LIFE)
        return True

    def _hosts(self) -> Sequence[str]:
        """The names and addresses in the public certificate; none if there is none."""
        found = self._read(_PUBLIC)
        return host_names(found) if found else ()

    def _read(self, name: str) -> x509.Certificate | None:
        try:
            return x509.load_pem_x509_certificate((self.folder / name / CERT).read_bytes())
        except (OSError, ValueError):
            return None

    def _is_good(self, name: str, now: datetime) -> bool:
        found = self._read(name)
        if found is None:
            return False
        life = found.not_valid_after_utc - found.not_valid_before_utc
        return found.not_valid_after_utc - now >= life / _RENEW_PART

    def _authority(self, now: datetime) -> Authority:
        cert, key = self.folder / AUTHORITY, self.folder / _AUTHORITY_KEY
        if not (cert.exists() or key.exists()):
            made = new_authority(now)
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(key, made.key_pem.decode())
            write_private(cert, made.cert_pem.decode())
        try:
            return read_authority(cert.read_bytes(), key.read_bytes(), now)
        except (OSError, ValueError) as error:
            raise CommandError(
                f"the authority in {self.folder} cannot be used ({error}): move the folder away"
            ) from None

    def _lay(self, name: str, pem: Pem) -> None:
        """Replace a service's files, each whole; services take them once they fit together."""
        folder = self.folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        for file, content in ((AUTHORITY, pem.authority), (KEY, pem.key), (CERT, pem.cert)):
            write_private(folder / file, content.decode())
