"""`echomesh why` and `echomesh doctor` against a running mesh, here and by its address."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import psutil
import pytest

from echomesh import Client, EchomeshError, Final
from tests.support.mesh import RunningMesh, until
from tests.support.mesh import echomesh as run_echomesh


def is_running(process: psutil.Process) -> bool:
    """Whether a process is more than a zombie that waits for its parent."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def asked(client: Client, conversation: str) -> Final:
    """A reply that rests on a memory."""
    await client.remember("My bicycle is in the shed.", request_id="bicycle")
    _, final = await client.reply("Where is my bicycle?", conversation_id=conversation)
    return final


async def test_a_reply_is_explained_also_after_the_replica_that_made_it_is_gone(
    mesh: RunningMesh, client: Client
) -> None:
    final = await asked(client, "why-restart")
    before = await client.explain(message_id=final.reply_id)
    old = mesh.service("routing")
    old.kill()
    until(lambda: not is_running(old), 60, "the end of the old routing")
    after = await client.explain(message_id=final.reply_id)
    assert before == after
    assert (after.decision.model, after.trace_id) == (final.model, final.trace_id)
    assert "My bicycle is in the shed." in [memory.text for memory in after.memories]
    assert after.used_memory_ids == final.used_memory_ids


async def test_why_shows_a_reply_by_its_id_and_the_last_one_of_a_time(
    mesh: RunningMesh, client: Client
) -> None:
    final = await asked(client, "why-command")
    now = datetime.now(UTC).isoformat()
    data = ("--data", str(mesh.data))
    by_id = run_echomesh("why", final.reply_id, *data)
    by_time = run_echomesh("why", "--conversation", "why-command", "--at", now, *data)
    assert by_id.returncode == 0, by_id.stderr
    assert by_id.stdout in by_time.stdout
    for part in (final.reply_id, final.model, "bicycle is in the shed", final.trace_id):
        assert part in by_id.stdout
    none = run_echomesh("why", "--conversation", "why-command", "--at", "2020-01-01", *data)
    assert none.returncode == 1
    assert "has no reply up to" in none.stderr


async def test_why_finds_an_end_users_reply_for_the_application(
    mesh: RunningMesh, client: Client
) -> None:
    final = await asked(client.as_user("carla"), "hers")
    arguments = ("why", final.reply_id, "--data", str(mesh.data))
    assert run_echomesh(*arguments, "--user", "carla").returncode == 0
    assert "NOT_FOUND" in run_echomesh(*arguments).stderr


async def test_a_message_of_no_turn_has_no_explanation(client: Client) -> None:
    memory = await client.remember("The sky was grey.")
    with pytest.raises(EchomeshError) as refused:
        await client.explain(message_id=memory.id)
    assert refused.value.reason == "NOT_FOUND"


def at_address(mesh: RunningMesh, *arguments: str, key: str = "") -> tuple[int, str]:
    """A command told the mesh's address alone; its status and what it said."""
    env = {**os.environ, "ECHOMESH_API_KEY": key or mesh.credentials.api_key}
    done = run_echomesh(*arguments, "--address", mesh.file.address, env=env)
    return done.returncode, done.stdout + done.stderr


def test_doctor_checks_a_mesh_by_its_address_and_a_key(mesh: RunningMesh) -> None:
    status, said = at_address(mesh, "doctor")
    assert (status, "FAIL" in said) == (0, False), said
    for part in ("address", "auth", "memory", "routing", "recall", "index", "chat"):
        assert f"ok   {part}" in said


def test_doctor_says_what_is_wrong_with_a_key_or_an_address(mesh: RunningMesh) -> None:
    status, said = at_address(mesh, "doctor", key="wrong")
    assert status == 1
    assert "CREDENTIALS_INVALID" in said
    done = run_echomesh(
        "doctor", "--address", "127.0.0.1:1", env={**os.environ, "ECHOMESH_API_KEY": "any"}
    )
    assert done.returncode == 1
    assert "FAIL address" in done.stdout
    unset = {name: value for name, value in os.environ.items() if name != "ECHOMESH_API_KEY"}
    done = run_echomesh("doctor", "--address", mesh.file.address, env=unset)
    assert done.returncode == 1
    assert "set ECHOMESH_API_KEY" in done.stdout
