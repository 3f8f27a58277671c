"""`echomesh certs`: an authority that stays, certificates that are made anew, files for one."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from typer.testing import CliRunner

from services.cli.certs_folder import Certs
from services.cli.files import CommandError
from services.cli.main import app
from services.cli.plan import SERVICES
from services.runtime.certificate_files import CERT, files_in

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LIFE = timedelta(days=90)


@pytest.fixture
def certs(tmp_path: Path) -> Certs:
    made = Certs(tmp_path / "certs")
    made.make(NOW, LIFE)
    return made


def _names(certs: Certs, name: str) -> x509.SubjectAlternativeName:
    pem = (certs.folder / name / CERT).read_bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def _cert(certs: Certs, name: str) -> bytes:
    return (certs.folder / name / CERT).read_bytes()


def test_every_service_gets_a_certificate_of_its_own(certs: Certs) -> None:
    authority = x509.load_pem_x509_certificate((certs.folder / "ca.crt").read_bytes())
    for name in (*SERVICES, "cli"):
        pem = files_in(certs.folder / name).current
        x509.load_pem_x509_certificate(pem.cert).verify_directly_issued_by(authority)
        names = _names(certs, name)
        assert names.get_values_for_type(x509.DNSName) == [f"{name}.echomesh"]
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        assert uris == [f"spiffe://echomesh/{name}"]
    assert len({_cert(certs, name) for name in SERVICES}) == len(SERVICES)


def test_nobody_but_the_owner_reads_a_key(certs: Certs) -> None:
    for path in (certs.folder, *certs.folder.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_made_anew_they_are_other_ones_of_the_same_authority(certs: Certs) -> None:
    before, authority = _cert(certs, "auth"), (certs.folder / "ca.crt").read_bytes()
    certs.make(NOW, LIFE)
    assert _cert(certs, "auth") != before
    assert (certs.folder / "ca.crt").read_bytes() == authority


def test_they_are_renewed_when_a_third_of_their_life_is_left_or_one_is_missing(
    certs: Certs,
) -> None:
    before = _cert(certs, "auth")
    assert not certs.renew(NOW + timedelta(days=59))
    assert _cert(certs, "auth") == before
    assert certs.renew(NOW + timedelta(days=61))
    assert _cert(certs, "auth") != before
    (certs.folder / "memory" / CERT).unlink()
    assert certs.renew(NOW + timedelta(days=61))
    assert files_in(certs.folder / "memory").current.cert == _cert(certs, "memory")


def test_none_outlives_the_authority(certs: Certs) -> None:
    late = NOW + timedelta(days=3649)
    assert certs.make(late, LIFE) == NOW + timedelta(days=3650)


def test_a_public_certificate_is_renewed_for_the_same_hosts(certs: Certs) -> None:
    certs.make(NOW, LIFE, ["mesh.lan", "10.0.0.7"])
    before = _cert(certs, "public")
    certs.make(NOW + timedelta(days=30), LIFE)
    assert _cert(certs, "public") != before
    names = _names(certs, "public")
    assert names.get_values_for_type(x509.DNSName) == ["mesh.lan"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("10.0.0.7")]
    (certs.folder / "public" / CERT).write_bytes(before)
    assert certs.renew(NOW + timedelta(days=61))
    assert _cert(certs, "public") != before


def test_an_authority_that_has_ended_is_one_clear_line(certs: Certs) -> None:
    with pytest.raises(CommandError, match=r"ended on 2036-11-18.*move the folder away"):
        certs.renew(NOW + timedelta(days=3651))


def test_a_broken_authority_is_one_clear_line(certs: Certs) -> None:
    (certs.folder / "ca.key").write_text("junk")
    with pytest.raises(CommandError, match="move the folder away") as said:
        certs.make(NOW, LIFE)
    assert "\n" not in str(said.value)


def test_the_command_names_hosts_and_makes_a_folder_that_up_takes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    arguments = ["certs", "--data", str(data), "--host", "mesh.lan", "--host", "10.0.0.7"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert str(data / "certs" / "public" / CERT) in done.output.replace("\n", "")
    names = _names(Certs(data / "certs"), "public")
    assert names.get_values_for_type(x509.DNSName) == ["mesh.lan"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("10.0.0.7")]
    assert (data / "format").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    done = CliRunner().invoke(app, ["certs", "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
