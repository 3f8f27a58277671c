"""`echomesh audit` against a running mesh: whole, anchored, tampered with, told."""

from __future__ import annotations

import json
from pathlib import Path

from echomesh import Client
from tests.support.audited import unguarded
from tests.support.mesh import RunningMesh
from tests.support.mesh import echomesh as run_echomesh


def _owner_dsn(mesh: RunningMesh) -> str:
    """The address of the schema's owner, as an intruder on this machine could put it together."""
    passwords = json.loads((mesh.data / "postgres" / "passwords.json").read_text())
    environment = mesh.service("auth").environ()
    host = environment["ECHOMESH_AUTH_DATABASE_URL"].rpartition("@")[2]
    return f"postgresql://auth_owner:{passwords['auth_owner']}@{host}"


async def test_the_log_of_a_running_mesh_is_whole_until_somebody_edits_it(
    mesh: RunningMesh, client: Client, tmp_path: Path
) -> None:
    """Anchors come from the command and, for nothing, from the services' own logs."""
    memory = await client.remember("This is to be erased.", request_id="audit")
    await client.forget(memory.id)
    anchors = tmp_path / "anchors.jsonl"
    printed = run_echomesh("audit", "anchor", "--data", str(mesh.data))
    assert printed.returncode == 0, printed.stderr
    anchors.write_text(printed.stdout)

    files = [str(anchors), *(str(mesh.data / "logs" / f"{s}.log") for s in ("auth", "memory"))]
    options = [word for file in files for word in ("--anchors", file)]
    verified = run_echomesh("audit", "verify", *options, "--data", str(mesh.data))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "problems" not in verified.stdout
    assert verified.stdout.count("anchors hold") == 2

    report = run_echomesh("audit", "report", "--data", str(mesh.data))
    assert report.returncode == 0, report.stderr
    assert "## CC6.1" in report.stdout
    assert "| memory.erase | " in report.stdout

    change = "update auth.audit_log set actor = $1 where seq = 3 and tenant_id = $2"
    tenant_id = mesh.credentials.tenant_id
    async with unguarded(_owner_dsn(mesh), "auth") as owner:
        await owner.execute(change, "user:x", tenant_id)
    tampered = run_echomesh("audit", "verify", "--data", str(mesh.data))
    assert tampered.returncode == 1
    assert "entry 3: its hash does not fit what it says: edited" in tampered.stdout
    async with unguarded(_owner_dsn(mesh), "auth") as owner:
        await owner.execute(change, "bootstrap", tenant_id)
    assert run_echomesh("audit", "verify", "--data", str(mesh.data)).returncode == 0
    _archived_it_goes_on(mesh, tmp_path, options)


def _archived_it_goes_on(mesh: RunningMesh, folder: Path, options: list[str]) -> None:
    """Old entries in a file prove, with what is left, all that the whole log did."""
    url = folder / "owner-url"
    url.write_text(_owner_dsn(mesh))
    words = ["--log", "auth", "--before", "2100-01-01", "--out", str(folder)]
    archived = run_echomesh("audit", "archive", *words, "--owner-url", str(url))
    assert archived.returncode == 0, archived.stderr
    (file,) = folder.glob(f"auth-{mesh.credentials.tenant_id}-1-*.jsonl")
    alone = run_echomesh("audit", "verify", *options, "--data", str(mesh.data))
    assert alone.returncode == 0, alone.stdout + alone.stderr
    assert " archived ones" in alone.stdout
    archive = ["--archive", str(file)]
    together = run_echomesh("audit", "verify", *archive, *options, "--data", str(mesh.data))
    assert together.returncode == 0, together.stdout + together.stderr
    assert "archived" not in together.stdout
