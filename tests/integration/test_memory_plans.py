"""What recall and the outbox read, they find by an index, however much has been stored."""

from __future__ import annotations

import pytest

from services.memory.postgres import outbox, searching
from services.runtime.postgres import Connection, Database
from tests.support.memory_world import ALICE, NOW, memory_world, message
from tests.support.postgres import FreshDatabase

STORED, ASKED = 400, 5
WAITING = 20_000

STATEMENTS = {
    "rows": f"(text, text, text, uuid[]) AS {searching._BY_ID}",
    "heads": f"(text, text, uuid[]) AS {searching._HEADS.format(conditions='', limit=ASKED)}",
}


@pytest.mark.parametrize("read", STATEMENTS)
async def test_memory_recall_reads_no_rows_but_its_own_from_tables_never_analysed(
    fresh_database: FreshDatabase, read: str
) -> None:
    """Planned once for all, without statistics, a lookup passes over no row of the person's."""
    database = await fresh_database("memory")
    async with memory_world(database) as world:
        turns = [message(f"turn {n}") for n in range(STORED)]
        stored = await world.store.append_messages(ALICE, "long", turns, NOW)
    app = Database(database.app("memory"), name="test")
    try:
        async with app.tenant(ALICE) as conn:
            plan = await _plan(conn, read, [str(i) for i in stored.message_ids[:ASKED]])
    finally:
        await app.close()
    assert "pkey" in plan
    assert "Rows Removed by Filter" not in plan, plan


async def test_memory_a_batch_of_jobs_is_claimed_without_reading_all_that_wait(
    fresh_database: FreshDatabase,
) -> None:
    """After a large import many wait; planned once for all, the claim reads its own alone."""
    database = await fresh_database("memory")
    jobs = Database(database.jobs("memory"), name="test")
    try:
        async with jobs.transaction() as conn:
            await conn.execute(
                "INSERT INTO memory.outbox (tenant_id, user_id, memory_id) "
                f"SELECT 'acme', 'ann', gen_random_uuid() FROM generate_series(1, {WAITING})"
            )
            await conn.execute("ANALYZE memory.outbox")
            await conn.execute(f"PREPARE claim (float8) AS {outbox._CLAIM.format(limit=64)}")
            lines = await conn.fetch("EXPLAIN EXECUTE claim (6)")
    finally:
        await jobs.close()
    plan = "\n".join(line for (line,) in lines)
    assert "Seq Scan" not in plan, plan
    assert "outbox_due" in plan


async def _plan(conn: Connection, read: str, ids: list[str]) -> str:
    model = "'a-model', " if read == "rows" else ""
    named = ", ".join(f"'{memory_id}'" for memory_id in ids)
    await conn.execute(f"PREPARE asked {STATEMENTS[read]}")
    lines = await conn.fetch(
        "EXPLAIN (ANALYZE) EXECUTE asked "
        f"('{ALICE.tenant_id}', '{ALICE.user_id}', {model}ARRAY[{named}]::uuid[])"
    )
    return "\n".join(line for (line,) in lines)
