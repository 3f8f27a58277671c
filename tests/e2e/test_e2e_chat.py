"""A person talks with the companion, through the SDK and the command."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest

import echomesh
from echomesh import Client, ImportResult, NewMessage
from tests.support.mesh import RunningMesh
from tests.support.mesh import echomesh as run_echomesh


async def test_what_was_told_in_one_conversation_is_known_in_another(client: Client) -> None:
    user = client.as_user("knows")
    await user.reply("My locker code is 4417.", conversation_id="monday")
    text, final = await user.reply("What is my locker code?", conversation_id="tuesday")
    assert "4417" in text
    assert final.used_memory_ids
    assert (final.message_stored, final.reply_stored) == ("stored", "stored")


async def test_what_was_never_said_is_not_made_up(client: Client) -> None:
    user = client.as_user("honest")
    await user.reply("I adopted a grey cat called Biscuit.", conversation_id="c")
    text, _ = await user.reply("What is the registration of my car?", conversation_id="c")
    assert "Biscuit" not in text or "not sure" in text.lower()
    assert "know" in text.lower() or "sure" in text.lower()


async def test_frames_come_in_order_and_begin_with_accepted(client: Client) -> None:
    frames = [f async for f in client.as_user("frames").chat("Hello!")]
    assert isinstance(frames[0], echomesh.Accepted)
    assert isinstance(frames[-1], echomesh.Final)
    assert frames[0].trace_id == frames[-1].trace_id
    assert len(frames[0].trace_id) == 32


async def test_the_same_request_id_is_answered_once_and_then_replayed(client: Client) -> None:
    user = client.as_user("idempotent")
    first, first_final = await user.reply("I like tea.", request_id="r-1", conversation_id="c")
    again, again_final = await user.reply("I like tea.", request_id="r-1", conversation_id="c")
    assert (again, again_final.reply_id) == (first, first_final.reply_id)
    assert [m.text async for m in user.messages("c")] == ["I like tea.", first]
    with pytest.raises(echomesh.EchomeshError) as reused:
        await user.reply("I like coffee.", request_id="r-1", conversation_id="c")
    assert reused.value.reason == "REQUEST_ID_REUSED"


async def test_two_runners_of_one_turn_store_one_reply(client: Client) -> None:
    user = client.as_user("two-runners")

    async def run() -> str:
        try:
            return (await user.reply("Remember the milk.", request_id="r", conversation_id="c"))[0]
        except echomesh.EchomeshError as error:
            assert error.reason == "TURN_SUPERSEDED"
            return ""

    await asyncio.gather(*(run() for _ in range(4)))
    roles = [m.role async for m in user.messages("c")]
    assert roles == ["user", "assistant"]


async def test_a_private_message_is_not_stored(client: Client) -> None:
    user = client.as_user("private")
    _, final = await user.reply("This is a secret.", store=False, conversation_id="c")
    assert (final.message_stored, final.reply_stored) == ("not_stored", "not_stored")
    assert [c.id async for c in user.conversations()] == []


async def test_two_users_never_see_each_others_memories(client: Client) -> None:
    alice, bob = client.as_user("alice"), client.as_user("bob")
    kept = await alice.remember("The safe is behind the painting.")
    assert [h.memory.id for h in (await alice.recall("safe")).hits] == [kept.id]
    assert (await bob.recall("safe painting")).hits == ()
    with pytest.raises(echomesh.EchomeshError) as foreign:
        await bob.forget(kept.id)
    assert foreign.value.reason == "NOT_FOUND"
    assert [m.id async for m in alice.memories()] == [kept.id]


async def test_a_correction_is_recalled_and_what_is_forgotten_is_gone(client: Client) -> None:
    user = client.as_user("corrects")
    memory = await user.remember("My sister is called Lena.")
    await user.correct(memory.id, "My sister is called Lea.")
    assert [h.memory.text for h in (await user.recall("sister")).hits] == [
        "My sister is called Lea."
    ]
    await user.forget(memory.id)
    assert (await user.recall("sister")).hits == ()


async def test_an_import_is_recalled_at_once_and_importing_again_changes_nothing(
    client: Client,
) -> None:
    user = client.as_user("imports")
    lines = [NewMessage("user", f"Fact number {i} is about topic{i}.") for i in range(50)]
    assert await user.import_messages("old", lines) == ImportResult(50, 0)
    assert (await user.recall("topic37")).hits[0].memory.text.startswith("Fact number 37")
    assert await user.import_messages("old", lines) == ImportResult(0, 50)


def test_a_pipe_gets_the_reply_alone(mesh: RunningMesh) -> None:
    data = ["--data", str(mesh.data), "--conversation", "pipe"]
    run_echomesh("chat", *data, input="My gate code is 9920.\n")
    done = run_echomesh("chat", *data, input="What is my gate code?\n")
    assert done.returncode == 0, done.stderr
    assert "9920" in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1


def test_import_names_bad_lines_keeps_the_good_ones_and_its_status_tells(
    mesh: RunningMesh, tmp_path: Path
) -> None:
    good = {
        "conversation": "file",
        "speaker": "Maya",
        "role": "user",
        "text": "The boat is called Petrel.",
        "time": "2026-02-01T09:00:00Z",
    }
    file = tmp_path / "history.jsonl"
    file.write_text("\n".join([json.dumps(good), "{oops", json.dumps(good | {"role": "cat"})]))
    done = run_echomesh("import", str(file), "--data", str(mesh.data))
    assert done.returncode == 2
    assert "1 stored" in done.stdout
    assert [line[:7] for line in done.stderr.strip().splitlines()] == ["line 2:", "line 3:"]


def test_doctor_finds_every_part_well(mesh: RunningMesh) -> None:
    done = run_echomesh("doctor", "--data", str(mesh.data))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout


def test_config_says_where_each_setting_came_from_and_masks_secrets(mesh: RunningMesh) -> None:
    done = run_echomesh("config", "--data", str(mesh.data))
    assert done.returncode == 0, done.stderr
    assert "routing.public_address" in done.stdout
    assert "(default)" in done.stdout


def test_the_first_key_is_readable_by_its_owner_alone(mesh: RunningMesh) -> None:
    mode = stat.S_IMODE((mesh.data / "credentials.json").stat().st_mode)
    assert mode == 0o600


def test_a_second_instance_on_the_same_folder_is_refused_in_one_line(mesh: RunningMesh) -> None:
    done = run_echomesh("up", "--data", str(mesh.data), "--port-base", "50000")
    assert done.returncode == 1
    assert "is up on" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_port_in_use_is_named_in_one_line(mesh: RunningMesh, tmp_path: Path) -> None:
    done = run_echomesh("up", "--data", str(tmp_path), "--port-base", str(mesh.port_base))
    assert done.returncode == 1
    assert "is in use" in done.stderr
