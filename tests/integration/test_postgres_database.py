"""What the pool and the roles of the embedded server promise."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from services.runtime import postgres
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.errors import AppError, Reason
from services.runtime.migrate import MigrationError, check_schema, migrate_service
from services.runtime.postgres import Database, mapped_error
from tests.support.postgres import FreshDatabase


@dataclass(frozen=True)
class Someone:
    """A subject."""

    tenant_id: str
    user_id: str


MIGRATION = """-- compatible-from: 1
create table notes (tenant_id text not null, user_id text not null, text text not null);
alter table notes enable row level security;
alter table notes force row level security;
create policy own on notes to memory_app using (
    tenant_id = nullif(current_setting('app.tenant_id', true), '')
    and user_id = nullif(current_setting('app.user_id', true), ''));
create policy all_rows on notes to memory_owner using (true);
grant select, insert on notes to memory_app;
"""


@contextlib.asynccontextmanager
async def opened(dsn: str, **options: float) -> AsyncIterator[Database]:
    """A database that is closed in the end."""
    database = Database(dsn, name="test", **options)  # type: ignore[arg-type]
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """A folder with one migration."""
    (tmp_path / "0001_notes.sql").write_text(MIGRATION)
    return tmp_path


async def test_a_user_sees_own_rows_only(fresh_database: FreshDatabase, migrations: Path) -> None:
    """Row-level security follows `tenant`, and without one no row shows."""
    made = await fresh_database("memory", migrate=False)
    await migrate_service("memory", made.owner("memory"), migrations)
    async with opened(made.app("memory")) as db:
        for user in ("ann", "bob"):
            async with db.tenant(Someone("t1", user)) as connection:
                await connection.execute("insert into notes values ('t1', $1, 'x')", user)
        async with db.tenant(Someone("t1", "ann"), readonly=True) as connection:
            assert [row["user_id"] for row in await connection.fetch("table notes")] == ["ann"]
        async with db.transaction() as connection:
            assert await connection.fetch("table notes") == []


async def test_a_cancelled_call_rolls_back_without_an_alarm_and_gives_its_connection_back(
    fresh_database: FreshDatabase, migrations: Path
) -> None:
    """Callers go away all the time; that is no error to log, and nothing of theirs stays."""
    made = await fresh_database("memory", migrate=False)
    await migrate_service("memory", made.owner("memory"), migrations)
    alarms: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, c: alarms.append(c["message"]))
    ann, waits = Someone("t1", "ann"), asyncio.Event()

    async def interrupted(db: Database) -> None:
        async with db.tenant(ann) as connection:
            await connection.execute("insert into notes values ('t1', 'ann', 'x')")
            waits.set()
            await connection.execute("select pg_sleep(60)")

    async with opened(made.app("memory"), max_size=1) as db:
        task = asyncio.create_task(interrupted(db))
        await waits.wait()
        while not task.done():  # its roll-back is cancelled too
            task.cancel()
            await asyncio.sleep(0)
        while not await db.ping():  # a busy machine may take longer than a caller would wait
            pass
        async with db.tenant(ann) as connection:
            assert await connection.fetch("table notes") == []
    assert not [alarm for alarm in alarms if "active transaction" in alarm]


async def test_roles_have_rights_in_their_own_schema_only(fresh_database: FreshDatabase) -> None:
    """Another service's tables are out of reach, even for reading."""
    made = await fresh_database("memory", "auth", migrate=False)
    owner = await asyncpg.connect(made.owner("auth"))
    await owner.execute("create table secrets (x int)")
    await owner.close()
    async with opened(made.app("memory")) as db:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with db.transaction() as connection:
                await connection.execute("select * from auth.secrets")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with db.transaction() as connection:
                await connection.execute("create table memory.mine (x int)")


async def test_app_roles_never_wait_longer_than_five_seconds(fresh_database: FreshDatabase) -> None:
    """The limits hold for the role itself, whatever the client asks for."""
    made = await fresh_database("memory", migrate=False)
    async with opened(made.app("memory")) as db, db.transaction() as connection:
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            value = await connection.fetchval(
                "select setting::int from pg_settings where name=$1", name
            )
            assert 0 < value <= 5_000


async def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    """Nobody listening is told as DEPENDENCY_UNAVAILABLE with a time to try again."""
    async with opened(f"postgresql://a:b@/x?host={tmp_path}&port=1") as db:
        with pytest.raises(AppError) as failure:
            async with db.transaction():
                pass
        assert failure.value.reason is Reason.DEPENDENCY_UNAVAILABLE
        assert failure.value.retry_after_s
        assert not await db.ping()


def test_a_programming_error_is_not_taken_for_an_outage() -> None:
    """Only what a second try may cure becomes UNAVAILABLE."""
    assert mapped_error(asyncpg.UndefinedTableError("x")) is None
    assert mapped_error(asyncpg.InterfaceError("another operation is in progress")) is None
    full = mapped_error(asyncpg.DiskFullError("x"))
    assert full is not None
    assert full.reason is Reason.STORAGE_FULL


async def test_migrations_run_once_and_may_not_change(
    fresh_database: FreshDatabase, migrations: Path
) -> None:
    """A second run applies nothing, two at once apply each file once, an edit is refused."""
    made = await fresh_database("memory", migrate=False)
    owner = made.owner("memory")
    both = await asyncio.gather(*(migrate_service("memory", owner, migrations) for _ in range(2)))
    assert sorted(both) == [[], ["0001_notes"]]
    (migrations / "0001_notes.sql").write_text(MIGRATION + "-- edited")
    with pytest.raises(MigrationError, match="was changed after it was applied"):
        await migrate_service("memory", owner, migrations)


async def test_only_an_incompatible_schema_is_refused(
    fresh_database: FreshDatabase, migrations: Path
) -> None:
    """The previous release works on an expanded schema and refuses a contracted one."""
    made = await fresh_database("memory", migrate=False)
    owner, app = made.owner("memory"), made.app("memory")
    old = migrations / "old"
    old.mkdir()
    (old / "0001_notes.sql").write_text(MIGRATION)
    (migrations / "0002_expand.sql").write_text("-- compatible-from: 1\ncreate table b (x int);")
    await migrate_service("memory", owner, migrations)
    await check_schema("memory", app, old)
    (migrations / "0003_contract.sql").write_text("-- compatible-from: 3\ndrop table b;")
    await migrate_service("memory", owner, migrations)
    with pytest.raises(MigrationError, match="needs a newer release"):
        await check_schema("memory", app, old)
    await check_schema("memory", app, migrations)


async def test_kill_9_of_the_server_loses_no_acknowledged_row(tmp_path: Path) -> None:
    """What was committed before a crash is there after the restart."""
    server = EmbeddedPostgres(tmp_path / "postgres")
    await server.start()
    connection = await asyncpg.connect(server.admin_dsn)
    await connection.execute("create table t (x int)")
    acknowledged = 0
    for number in range(200):
        await connection.execute("insert into t values ($1)", number)
        acknowledged += 1
    os.kill(server.postmaster_pid, signal.SIGKILL)
    await server.wait()
    connection.terminate()
    await server.start()
    connection = await asyncpg.connect(server.admin_dsn)
    assert await connection.fetchval("select count(*) from t") == acknowledged
    await connection.close()
    await server.stop()


async def test_a_frozen_server_is_noticed_and_replaced(tmp_path: Path) -> None:
    """A stopped postmaster does not answer; kill and start bring it back."""
    server = EmbeddedPostgres(tmp_path / "postgres")
    await server.start()
    os.kill(server.postmaster_pid, signal.SIGSTOP)
    assert not await server.answers(timeout_s=0.3)
    await server.kill()
    await server.start()
    assert await server.answers(timeout_s=30)
    await server.stop()


async def test_statements_stay_prepared_where_the_server_itself_answers(
    fresh_database: FreshDatabase,
) -> None:
    """The second transaction on a connection finds what the first one prepared."""
    made = await fresh_database("memory", migrate=False)
    async with opened(made.app("memory"), max_size=1) as db:
        for _ in range(2):
            async with db.transaction() as connection:
                await connection.fetchval("select 1 + $1::int", 1)
                kept = await connection.fetch("select statement from pg_prepared_statements")
        assert "select 1 + $1::int" in [row["statement"] for row in kept]


async def test_no_name_of_a_tenant_or_user_can_be_sql(fresh_database: FreshDatabase) -> None:
    """Quotes, backslashes and other scripts arrive as they are."""
    made = await fresh_database("memory", migrate=False)
    strange = Someone("t'; drop table x; --", "\\x27 'ünï' \"☃\" {mode} $1")
    async with opened(made.app("memory")) as db:
        async with db.tenant(strange) as connection:
            sql = "select current_setting('app.tenant_id'), current_setting('app.user_id')"
            assert tuple(await connection.fetchrow(sql)) == (strange.tenant_id, strange.user_id)


async def test_a_changed_result_of_a_prepared_statement_asks_to_try_again(
    fresh_database: FreshDatabase,
) -> None:
    """A migration under a running service costs a retry and no internal error."""
    made = await fresh_database("memory", migrate=False)
    owner = await asyncpg.connect(made.owner("memory"))
    await owner.execute("create table shapes (x int); grant select on shapes to memory_app")
    async with opened(made.app("memory"), max_size=1) as db:
        async with db.transaction() as connection:
            await connection.fetch("select * from shapes where x > $1", 0)
        await owner.execute("alter table shapes add column y int")
        with pytest.raises(AppError) as caught:
            async with db.transaction() as connection:
                await connection.fetch("select * from shapes where x > $1", 0)
        assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
        async with db.transaction() as connection:
            await connection.fetch("select * from shapes where x > $1", 0)
    await owner.close()


async def test_callers_share_one_attempt_to_reach_a_silent_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each would otherwise wait for all before it."""
    monkeypatch.setattr(postgres, "CONNECT_TIMEOUT_S", 2.0)
    connections = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    database = Database(f"postgresql://u:p@127.0.0.1:{port}/d?sslmode=disable", name="test")
    async with server:
        answers = await asyncio.gather(*(database.ping() for _ in range(6)))
        await database.close()

    assert answers == [False] * 6
    assert connections == 1


async def test_a_pooler_that_comes_later_ends_the_keeping_of_statements(
    fresh_database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover may put one behind the same name; another server's statements are not ours."""
    dsns = await fresh_database("memory", migrate=False)
    database = Database(dsns.app("memory"), name="test")
    really = postgres._same_server
    answers = iter([True, False])

    async def same(connection: asyncpg.Connection[Any]) -> bool:
        await really(connection)
        return next(answers, False)

    monkeypatch.setattr(postgres, "_same_server", same)
    with pytest.raises(AppError) as refused:
        async with database.transaction():
            pass
    async with database.transaction() as connection:
        await connection.fetchval("select 1")
        kept = await connection.fetchval("select count(*) from pg_prepared_statements")
    await database.close()

    assert refused.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert kept == 0
