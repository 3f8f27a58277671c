"""What a mesh on Kubernetes needs is made once, kept in one Secret, and never made anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from cryptography.x509 import (
    DNSName,
    SubjectAlternativeName,
    UniformResourceIdentifier,
    load_pem_x509_certificate,
)

from services.auth.preparing import Wanted, fill, prepare
from services.auth.wrapping import read_wrapping_key
from services.runtime.errors import AppError
from services.runtime.kube import Conflict, Secret
from services.runtime.migrate import MigrationError, migrate_service
from services.runtime.pgbinaries import PostgresUnavailable
from services.runtime.trust import load_private, load_public
from tests.support.kube_api import KubeApi, kube_api
from tests.support.postgres import PostgresServer

SERVICES = ("auth", "memory", "routing")
NOWHERE = "postgresql://postgres:x@127.0.0.1:1/postgres"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    """An API server with the empty Secret that the chart makes."""
    with kube_api(tmp_path / "account") as found:
        found.secrets["keys"] = {}
        yield found


@pytest.fixture
def secret(api: KubeApi, tmp_path: Path) -> Secret:
    return Secret("keys", tmp_path / "account", api.url)


async def test_each_service_gets_a_key_that_the_others_can_check(
    api: KubeApi, secret: Secret, tmp_path: Path
) -> None:
    await prepare(secret, Wanted(SERVICES))
    for name, content in api.secrets["keys"].items():
        (tmp_path / name).write_bytes(content)
    public = load_public(tmp_path)
    for service in SERVICES:
        signed = load_private(tmp_path, service).sign(b"x")
        public[service].verify(signed, b"x")
    assert len(read_wrapping_key(tmp_path / "wrapping.key")) == 32


async def test_what_is_there_stays_and_what_another_job_made_meanwhile_stays_too(
    api: KubeApi, secret: Secret, tmp_path: Path
) -> None:
    await prepare(secret, Wanted(SERVICES))
    before = dict(api.secrets["keys"])
    await prepare(secret, Wanted(SERVICES))
    assert api.secrets["keys"] == before
    theirs = b"theirs".hex().encode()
    api.race = {"note": theirs}
    await prepare(secret, Wanted((*SERVICES, "models")))
    after = dict(api.secrets["keys"])
    assert after.pop("note") == theirs
    assert after.pop("models.key")
    assert set(json.loads(after.pop("trust.json"))) == {*SERVICES, "models"}
    before.pop("trust.json")
    assert after == before


async def test_certificates_are_signed_once_and_name_their_service(
    api: KubeApi, secret: Secret, tmp_path: Path
) -> None:
    """For mutual TLS where no cert-manager is; a service that comes later gets one too."""
    await prepare(secret, Wanted(SERVICES[:2], trust_domain="mesh.demo"))
    before = dict(api.secrets["keys"])
    await prepare(secret, Wanted(SERVICES, trust_domain="mesh.demo"))
    kept = api.secrets["keys"]
    assert {key: kept[key] for key in before if key != "trust.json"} == {
        key: before[key] for key in before if key != "trust.json"
    }
    authority = load_pem_x509_certificate(kept["mesh-ca.crt"])
    for service in SERVICES:
        certificate = load_pem_x509_certificate(kept[f"{service}.tls.crt"])
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
        assert names.get_values_for_type(DNSName) == [f"{service}.mesh.demo"]
        uris = names.get_values_for_type(UniformResourceIdentifier)
        assert uris == [f"spiffe://mesh.demo/{service}"]


async def test_the_services_roles_are_made_and_their_addresses_kept(
    api: KubeApi, secret: Secret, postgres: PostgresServer, tmp_path: Path
) -> None:
    await prepare(secret, Wanted(SERVICES, postgres.embedded.admin_dsn))
    kept = api.secrets["keys"]
    for service in ("auth", "memory"):
        for kind in ("app", "jobs", "owner"):
            connection = await asyncpg.connect(kept[f"{service}-{kind}-url"].decode())
            assert await connection.fetchval("select current_user") == f"{service}_{kind}"
            await connection.close()
    (tmp_path / "none").mkdir()
    owner = kept["memory-owner-url"].decode()
    assert await migrate_service("memory", owner, tmp_path / "none") == []


async def test_the_addresses_are_there_before_the_database_is(api: KubeApi, secret: Secret) -> None:
    """So that pods can start meanwhile; the Job says in one line what it waits for."""
    with pytest.raises(PostgresUnavailable, match=r"127\.0\.0\.1 cannot be used"):
        await prepare(secret, Wanted(SERVICES, NOWHERE))
    assert b"@127.0.0.1:1/echomesh" in api.secrets["keys"]["auth-app-url"]


def test_a_server_of_our_own_gets_a_password_once(
    api: KubeApi, secret: Secret, tmp_path: Path
) -> None:
    dsns = set()
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        dsns.add(fill(secret, folder, Wanted(SERVICES, postgres_host="db:5432")))
    password = api.secrets["keys"]["postgres-password"].decode()
    assert dsns == {f"postgresql://postgres:{password}@db:5432/postgres"}


def test_a_secret_that_cannot_be_read_or_was_changed_says_so(
    api: KubeApi, secret: Secret, tmp_path: Path
) -> None:
    with pytest.raises(AppError, match="the Secret other cannot be used: 404"):
        Secret("other", tmp_path / "account", api.url).read()
    secret.read()
    api.version += 1
    with pytest.raises(Conflict):
        secret.add({"x": b"y"})
    (tmp_path / "account/token").write_text("another")
    with pytest.raises(AppError, match="403"):
        secret.read()
    with pytest.raises(AppError, match="no pod with a service account"):
        Secret("keys", tmp_path / "nowhere")


async def test_a_migration_names_the_database_that_is_away_and_a_schema_that_is_not_made(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with pytest.raises(MigrationError, match=r"memory: the database at 127\.0\.0\.1 cannot"):
        await migrate_service("memory", NOWHERE, tmp_path)
    with pytest.raises(MigrationError, match="it has no schema nobody"):
        await migrate_service("nobody", postgres.embedded.admin_dsn, tmp_path)


async def test_a_migration_waits_for_the_database(
    postgres: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = 0
    real = asyncpg.connect

    async def late(dsn: str, **options: object) -> asyncpg.Connection:
        nonlocal calls
        calls += 1
        return await real(NOWHERE if calls == 1 else dsn, **options)

    dsns = await postgres.embedded.provision(["memory"], "waited_for")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncpg, "connect", late)
        applied = await migrate_service("memory", dsns["memory"].owner, tmp_path, wait_s=60)
    assert (applied, calls) == ([], 2)
    assert "waiting: memory: the database at" in capsys.readouterr().err
