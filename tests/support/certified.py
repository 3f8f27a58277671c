"""A mesh listener and channels with mutual TLS, by an authority that is made for the test."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from services.runtime.certificate_files import AUTHORITY, CERT, KEY, Pem
from services.runtime.certificates import Authority, new_authority, service_certificate
from services.runtime.channel import ChannelFactory, MeshChannel
from services.runtime.clock import SystemClock
from services.runtime.server import Registration, Server
from services.runtime.settings import ServiceSettings
from services.runtime.tokens import AssertionSigner, AssertionVerifier
from services.runtime.trust import create_trust, load_private, load_public

DAY = timedelta(days=1)


def now() -> datetime:
    """The time by which TLS itself goes."""
    return datetime.now(UTC)


def lay(folder: Path, pem: Pem) -> Path:
    """Write a certificate's three files one after the other, as a person might."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((KEY, pem.key), (CERT, pem.cert), (AUTHORITY, pem.authority)):
        draft = folder / f".{name}"
        draft.write_bytes(content)
        draft.replace(folder / name)
    return folder


def issued(authority: Authority, service: str, domain: str = "echomesh") -> Pem:
    """A new certificate of a service, good for a day."""
    return service_certificate(authority, service, domain, now(), DAY)


@dataclass
class Certified:
    """A server of "memory" whose mesh listener speaks mutual TLS, and the means to call it."""

    server: Server
    authority: Authority
    folder: Path

    @property
    def own(self) -> Path:
        """The folder of the server's certificate."""
        return self.folder / "memory"

    def channels(self, folder: Path | None, caller: str = "routing") -> ChannelFactory:
        """The channels of `caller` with the certificate in a folder; None: plain text."""
        settings = ServiceSettings(
            data_dir=self.folder,
            mesh_tls_dir=folder,
            memory_target=f"ipv4:{self.server.mesh_bound}",
        )
        signer = AssertionSigner(caller, load_private(self.folder / "trust", caller), SystemClock())
        return ChannelFactory(settings, signer)

    @asynccontextmanager
    async def calling(
        self, certificate: Pem | None, caller: str = "routing"
    ) -> AsyncIterator[MeshChannel]:
        """A channel as `caller` has it, with this in its folder; None: plain text."""
        folder = lay(self.folder / caller, certificate) if certificate else None
        factory = self.channels(folder, caller)
        try:
            yield factory.channel("memory")
        finally:
            await factory.close()


@asynccontextmanager
async def certified(
    folder: Path,
    *registrations: Registration,
    authority: Authority | None = None,
    certificate: Pem | None = None,
    validator: Any = None,
) -> AsyncIterator[Certified]:
    """Serve "memory" on a mesh listener with its own certificate, or another one."""
    authority = authority or new_authority(now())
    create_trust(folder / "trust", ("routing", "memory", "embeddings"))
    settings = ServiceSettings(
        mesh_address="127.0.0.1:0",
        data_dir=folder,
        mesh_tls_dir=lay(folder / "memory", certificate or issued(authority, "memory")),
    )
    verifier = AssertionVerifier("memory", load_public(folder / "trust"), SystemClock())
    server = Server("memory", settings, mesh=registrations, validator=validator, verifier=verifier)
    await server.start()
    try:
        yield Certified(server, authority, folder)
    finally:
        await server.stop(grace_s=0)


async def shown_certificate(address: str) -> str:
    """The certificate, in PEM, that a listener shows who connects now, trusted or not."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, port = address.rsplit(":", 1)
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
    return ssl.DER_cert_to_PEM_cert(der)
