"""A small authority of our own: for one machine, and for a first look at a cluster.

Elsewhere cert-manager, or whoever keeps an authority already, makes the same certificates: DNS name
`<service>.<trust domain>`, SPIFFE id `spiffe://<trust domain>/<service>`, for both directions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.runtime.certificate_files import Pem
from services.runtime.tls import service_dns_name, spiffe_id

AUTHORITY_LIFE = timedelta(days=3650)
"""What it signed is replaced often; replacing an authority is work for people."""

# Machines' clocks differ a little.
_BACKDATED = timedelta(minutes=5)


@dataclass(frozen=True)
class Authority:
    """Who signs: a certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def cert_pem(self) -> bytes:
        """The certificate, by which others trust what is signed."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key."""
        return _key_pem(self.key)


def new_authority(now: datetime, life: timedelta = AUTHORITY_LIFE) -> Authority:
    """Make an authority that signs itself and may sign no further ones."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Echomesh authority")
    builder = (
        _builder(name, name, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def read_authority(cert_pem: bytes, key_pem: bytes, now: datetime) -> Authority:
    """Read an authority's two files. Raises ValueError, also for one that has ended by `now`."""
    key = serialization.load_pem_private_key(key_pem, None)
    certificate = x509.load_pem_x509_certificate(cert_pem)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key is of another kind")
    if key.public_key() != certificate.public_key():
        raise ValueError("the authority's key is not that of its certificate")
    if certificate.not_valid_after_utc <= now:
        raise ValueError(f"it ended on {certificate.not_valid_after_utc:%Y-%m-%d}")
    return Authority(certificate, key)


def service_certificate(
    authority: Authority, service: str, trust_domain: str, now: datetime, life: timedelta
) -> Pem:
    """Make the certificate by which a service is known in the mesh, with a new key."""
    names = [
        x509.DNSName(service_dns_name(trust_domain, service)),
        x509.UniformResourceIdentifier(spiffe_id(trust_domain, service)),
    ]
    return _issue(authority, service, names, now, life)


def host_certificate(
    authority: Authority, hosts: Sequence[str], now: datetime, life: timedelta
) -> Pem:
    """Make a certificate for public listeners at these names and addresses, with a new key."""
    return _issue(authority, hosts[0], [_host(host) for host in hosts], now, life)


def host_names(certificate: x509.Certificate) -> Sequence[str]:
    """The names and addresses that a certificate of `host_certificate` was made for."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in found]


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _issue(
    authority: Authority,
    common_name: str,
    names: Iterable[x509.GeneralName],
    now: datetime,
    life: timedelta,
) -> Pem:
    key = ec.generate_private_key(ec.SECP256R1())
    by = authority.certificate.subject
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = (
        _builder(_name(common_name), by, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(signer, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM)
    return Pem(chain, _key_pem(key), authority.cert_pem)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    # The standard allows 64 characters; what counts are the alternative names.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
