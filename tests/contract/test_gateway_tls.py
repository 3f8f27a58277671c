"""TLS of the gateway: what it shows is what the files hold now, and half of them is refused."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from services.runtime.errors import AppError
from tests.support.gateway import gateway_world


def lay(folder: Path, serial: int) -> tuple[Path, Path]:
    """A self-signed certificate with a number of its own, and its key, put in place at once."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for path, content in (("tls.key", private), ("tls.crt", certificate.public_bytes(pem))):
        draft = folder / f".{path}"
        draft.write_bytes(content)
        draft.replace(folder / path)
    return folder / "tls.crt", folder / "tls.key"


async def shown(address: str) -> int:
    """The number of the certificate that a client is shown, after one request over it."""
    host, _, port = address.rpartition(":")
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, int(port), ssl=trusting)
    writer.write(b"GET /health HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")
    assert b'{"status":"ok"}' in await reader.read()
    seen = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(seen).serial_number


async def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    cert, key = lay(tmp_path, 1)
    files = {"public_tls_cert": cert, "public_tls_key": key}
    async with gateway_world(tmp_path, **files) as world:
        assert await shown(world.address) == 1
        lay(tmp_path, 2)
        assert await shown(world.address) == 2
        key.write_text("half of a key")  # the certificate of before stays in use
        with capture_logs() as logged:
            assert await shown(world.address) == 2
            assert await shown(world.address) == 2
        (warning,) = (line for line in logged if line["event"] == "certificate_not_usable")
        assert str(key) in warning["error"]


async def test_keys_do_not_cross_the_network_in_the_clear(tmp_path: Path) -> None:
    with pytest.raises(AppError, match="in the clear"):
        async with gateway_world(tmp_path, public_address="0.0.0.0:0"):
            pass


async def test_plaintext_off_loopback_is_for_those_who_say_so(tmp_path: Path) -> None:
    async with gateway_world(tmp_path, public_address="0.0.0.0:0", public_plaintext=True) as world:
        assert world.address.startswith("0.0.0.0:")


@pytest.mark.parametrize("name", ["public_tls_cert", "public_tls_key"])
async def test_one_of_two_files_is_a_mistake(tmp_path: Path, name: str) -> None:
    with pytest.raises(AppError, match="belong together"):
        async with gateway_world(tmp_path, **{name: tmp_path / "one"}):
            pass


async def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    files = {"public_tls_cert": tmp_path / "no.crt", "public_tls_key": tmp_path / "no.key"}
    with pytest.raises(AppError, match=r"no\.crt"):
        async with gateway_world(tmp_path, **files):
            pass
