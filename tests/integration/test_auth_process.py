"""Auth as a process of its own: migrate, bootstrap, serve, and all that can be missing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import services.auth
from echomesh.auth.v1 import auth_pb2, auth_pb2_grpc
from services.runtime.trust import create_trust
from tests.support.postgres import FreshDatabase, TestDatabase

START_S = 120
_MIGRATIONS = Path(services.auth.__file__).parent / "migrations"


def _environment(folder: Path, database: TestDatabase, port: int = 0) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ECHOMESH_")}
    return kept | {
        "ECHOMESH_DATA_DIR": str(folder),
        "ECHOMESH_AUTH_DATABASE_URL": database.app("auth"),
        "ECHOMESH_AUTH_DATABASE_DIRECT_URL": database.owner("auth"),
        "ECHOMESH_AUTH_JOBS_DATABASE_URL": database.jobs("auth"),
        "ECHOMESH_AUTH_MESH_ADDRESS": f"127.0.0.1:{port}",
    }


async def _run(environment: dict[str, str], *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.auth",
        *arguments,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), START_S)
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def _serving(environment: dict[str, str], port: int) -> AsyncIterator[grpc.aio.Channel]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.auth", env=environment, stdin=asyncio.subprocess.DEVNULL
    )
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), START_S)
            yield channel
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), START_S) == 0


async def test_migrate_bootstrap_and_serve(
    fresh_database: FreshDatabase, tmp_path: Path, unused_tcp_port: int
) -> None:
    """From an empty schema to a token in three commands; bootstrap twice changes nothing."""
    database = await fresh_database("auth", migrate=False)
    environment = _environment(tmp_path, database, unused_tcp_port)
    path = tmp_path / "credentials.json"
    create_trust(tmp_path / "trust", ("auth",))

    applied = sorted(path.stem for path in _MIGRATIONS.glob("*.sql"))

    migrated = await _run(environment, "migrate")
    first = await _run(environment, "bootstrap", "--output", str(path))
    content = path.read_text()
    second = await _run(environment, "bootstrap", "--output", str(path))

    assert migrated == (0, "".join(f"applied {name}\n" for name in applied), "")
    assert (first[0], first[:2]) == (0, second[:2])
    assert path.read_text() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "auth" / "wrapping.key").stat().st_mode) == 0o600
    credentials = json.loads(content)
    assert credentials["api_key"] not in first[1]
    async with _serving(environment, unused_tcp_port) as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)
        request = auth_pb2.ExchangeApiKeyRequest(api_key=credentials["api_key"])
        answer = await stub.ExchangeApiKey(request, timeout=10)
    assert answer.tokens.access_token


async def test_a_lost_credentials_file_is_made_anew(
    fresh_database: FreshDatabase, tmp_path: Path
) -> None:
    """Bootstrap without the file makes new keys for the same tenant and user."""
    environment = _environment(tmp_path, await fresh_database("auth"))
    path = tmp_path / "credentials.json"
    await _run(environment, "bootstrap")
    before = json.loads(path.read_text())
    path.unlink()
    await _run(environment, "bootstrap")
    after = json.loads(path.read_text())

    assert (before["tenant_id"], before["user_id"]) == (after["tenant_id"], after["user_id"])
    assert before["api_key"] != after["api_key"]


async def test_auth_starts_and_is_healthy_without_postgres(
    fresh_database: FreshDatabase, tmp_path: Path, unused_tcp_port: int
) -> None:
    """Health does not follow Postgres; a sign-in says UNAVAILABLE."""
    environment = _environment(tmp_path, await fresh_database("auth"), unused_tcp_port)
    assert (await _run(environment, "bootstrap"))[0] == 0
    key = json.loads((tmp_path / "credentials.json").read_text())["api_key"]
    environment["ECHOMESH_AUTH_DATABASE_URL"] = "postgresql://auth_app:x@127.0.0.1:1/none"
    create_trust(tmp_path / "trust", ("auth",))

    async with _serving(environment, unused_tcp_port) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="auth"), timeout=30
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await auth_pb2_grpc.AuthServiceStub(channel).ExchangeApiKey(
                auth_pb2.ExchangeApiKeyRequest(api_key=key), timeout=30
            )

    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"ECHOMESH_AUTH_DATABASE_URL": None}, "auth needs ECHOMESH_AUTH_DATABASE_URL"),
        ({"ECHOMESH_AUTH_NO_SUCH": "1"}, "unknown setting ECHOMESH_AUTH_NO_SUCH"),
        ({}, "the wrapping key"),
    ],
    ids=["no-database", "unknown-key", "no-wrapping-key"],
)
async def test_what_is_missing_is_one_line(
    fresh_database: FreshDatabase, tmp_path: Path, change: dict[str, str | None], line: str
) -> None:
    """A service that cannot start says why in one line and ends with a failure."""
    environment: dict[str, str | None] = {**_environment(tmp_path, await fresh_database("auth"))}
    environment |= change
    if line != "the wrapping key":
        (tmp_path / "auth").mkdir()
        (tmp_path / "auth" / "wrapping.key").write_text("A" * 43 + "=")

    code, _, errors = await _run({k: v for k, v in environment.items() if v is not None})

    assert code not in (0, None)
    assert errors.strip().splitlines()[-1].startswith(f"echomesh: {line}")
    assert "Traceback" not in errors
