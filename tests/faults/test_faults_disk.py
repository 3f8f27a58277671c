"""Case 10: the disk is full. What was acknowledged stays, the rest is told, and space heals it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import echomesh
from echomesh import Client
from services.runtime.embedded import SUPERUSER
from services.runtime.private_files import kept_passwords
from services.runtime.process import socket_folder
from tests.support.mesh import RunningMesh, running_mesh
from tests.support.small_disk import MIB, SmallDisk, small_disk, why_not
from tests.support.waiting import until

# A fresh mesh takes about 120 MB; the rest leaves room for what happens before the disk is full.
DISK_BYTES = 320 * MIB
# A write of this size soon needs a new page.
TEXT = "The attic holds a box of letters. " * 200
# One service's log: 10 MB and five packed ones.
LOG_BYTES = 20 * MIB

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(240),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningMesh, SmallDisk]]:
    """A mesh whose data folder lies on a disk of its own."""
    folder = tmp_path_factory.mktemp("disk") / "disk"
    try:
        mounted = small_disk(folder, DISK_BYTES)
        disk = mounted.__enter__()
    except RuntimeError as error:
        pytest.skip(str(error))
    try:
        with running_mesh(folder / "data") as mesh:
            yield mesh, disk
    finally:
        mounted.__exit__(None, None, None)


@pytest.fixture
async def client(world: tuple[RunningMesh, SmallDisk]) -> AsyncIterator[Client]:
    mesh, _ = world
    key = mesh.credentials.api_key
    async with Client(mesh.file.address, api_key=key, timeout_s=5) as made:
        yield made


@dataclass
class Written:
    """What a writer was told: the texts acknowledged, and the errors of the others."""

    kept: dict[str, str] = field(default_factory=dict)
    errors: list[echomesh.EchomeshError] = field(default_factory=list)

    async def write(self, user: Client, number: int) -> None:
        """Store one memory."""
        text = f"Number {number}. {TEXT}"
        try:
            memory = await user.remember(text)
        except echomesh.EchomeshError as error:
            self.errors.append(error)
        else:
            self.kept[memory.id] = text


async def _eventually(work: Callable[[], Awaitable[object]], what: str) -> None:
    """Wait for a result that is no error and is true."""

    async def succeeds() -> object:
        try:
            return await work()
        except echomesh.EchomeshError:
            return None

    await until(succeeds, what)


async def _stored(user: Client) -> dict[str, str]:
    return {memory.id: memory.text async for memory in user.memories()}


async def test_a_full_disk_is_told_nothing_acknowledged_is_lost_and_space_heals_it(
    world: tuple[RunningMesh, SmallDisk], client: Client
) -> None:
    """Writes get STORAGE_FULL, reading and chats go on, no part of a write stays, logs are bounded.

    With space again the same processes write again.
    """
    mesh, disk = world
    user, written = client.as_user("writer"), Written()
    await user.remember("My bicycle is green.")
    processes = {process.pid for process in mesh.children() if "services." in _command(process)}
    for number in range(5):
        await written.write(user, number)
    disk.fill()
    for number in range(5, 60):
        await written.write(user, number)
    assert {error.reason for error in written.errors} == {"STORAGE_FULL"}
    assert {error.code.name for error in written.errors} == {"RESOURCE_EXHAUSTED"}
    assert all(error.retry_after for error in written.errors)

    assert await _stored(user) == {**written.kept, **await _bicycle(user)}
    await _reads_and_chats(user)
    assert _largest_log(mesh) < LOG_BYTES

    disk.make_room()
    await _eventually(lambda: user.remember("There is room again."), "a write")
    final = (await user.reply("What colour is my bicycle?", conversation_id="room"))[1]
    assert (final.message_stored, final.reply_stored) == ("stored", "stored")
    assert written.kept.items() <= (await _stored(user)).items()
    await _eventually(lambda: _is_whole(user), "the return of the index")
    now = {process.pid for process in mesh.children() if "services." in _command(process)}
    assert processes <= now, "a service was started anew"


async def _reads_and_chats(user: Client) -> None:
    """A reply rests on what was stored before, says that it is not stored, and leaves nothing.

    Not always the first: a new connection to Postgres may need a file of its own, after autovacuum.
    """

    async def recalled() -> echomesh.Final | None:
        question = "What colour is my bicycle?"
        text, final = await user.reply(question, conversation_id="full", tier="standard")
        return final if "green" in text else None

    final = await until(recalled, "a reply that rests on what was stored")
    assert final is not None
    assert final.message_stored == final.reply_stored == "not_stored"
    assert "memory" in final.degraded
    assert [m async for m in _messages(user, "full")] == []


async def _bicycle(user: Client) -> dict[str, str]:
    return {key: text for key, text in (await _stored(user)).items() if "bicycle" in text}


async def _messages(user: Client, conversation_id: str) -> AsyncIterator[echomesh.Message]:
    """Messages of a conversation, none if there is none."""
    try:
        async for message in user.messages(conversation_id):
            yield message
    except echomesh.EchomeshError as error:
        assert error.reason == "NOT_FOUND", error


async def _is_whole(user: Client) -> bool:
    """Whether recall misses no part and nothing waits for the index."""
    degraded = (await user.recall("green bicycle")).degraded
    return not degraded and (await user.index_status())[1] == 0


def _largest_log(mesh: RunningMesh) -> int:
    return max(path.stat().st_size for path in (mesh.data / "logs").iterdir())


def _command(process: Any) -> str:
    return " ".join(process.cmdline())


async def test_postgres_that_ends_on_a_full_disk_is_back_once_there_is_room(
    world: tuple[RunningMesh, SmallDisk], client: Client
) -> None:
    """A log that cannot grow ends Postgres; `up` waits for room instead of giving it up."""
    mesh, disk = world
    user, written = client.as_user("wal"), Written()
    for number in range(5):
        await written.write(user, number)
    connection = await _connected(mesh)
    disk.fill()
    _fill_last_page(mesh.log)  # what `up` says goes to this disk as well
    await _use_up_the_log(connection)
    refused = Written()
    await _eventually(lambda: _refused(user, refused), "a refusal")
    assert {error.code.name for error in refused.errors} <= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    final = (await user.reply("Are you there?", conversation_id=str(uuid.uuid4())))[1]
    assert final.message_stored != "stored"

    disk.make_room()
    await _eventually(lambda: user.remember("There is room again."), "a write")
    assert written.kept.items() <= (await _stored(user)).items()


def _fill_last_page(log: Path) -> None:
    with contextlib.suppress(OSError), log.open("a", buffering=1) as file:
        while True:
            file.write(".\n")


async def _connected(mesh: RunningMesh) -> asyncpg.Connection[asyncpg.Record]:
    """A connection made while there is room: Postgres may have to write a file to take it."""
    folder = mesh.data / "postgres"
    return await asyncpg.connect(
        user=SUPERUSER,
        password=kept_passwords(folder, {})[SUPERUSER],
        host=str(socket_folder(folder)),
        database="postgres",
    )


async def _use_up_the_log(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Begin new segments of the write-ahead log until there is no space for one."""
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        while True:
            await connection.execute("select pg_switch_wal()")
            await connection.execute("select pg_logical_emit_message(false, 'test', 'more')")
    connection.terminate()


async def _refused(user: Client, refused: Written) -> bool:
    await refused.write(user, 0)
    return bool(refused.errors)
