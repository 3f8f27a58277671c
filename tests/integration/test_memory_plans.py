"""What recall reads, it finds by its key, however fast the tables have grown."""

from __future__ import annotations

import pytest

from services.memory.postgres import searching
from services.runtime.postgres import Connection, Database
from tests.support.memory_world import ALICE, NOW, memory_world, message
from tests.support.postgres import FreshDatabase

STORED, ASKED = 400, 5

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


async def _plan(conn: Connection, read: str, ids: list[str]) -> str:
    model = "'a-model', " if read == "rows" else ""
    named = ", ".join(f"'{memory_id}'" for memory_id in ids)
    await conn.execute(f"PREPARE asked {STATEMENTS[read]}")
    lines = await conn.fetch(
        "EXPLAIN (ANALYZE) EXECUTE asked "
        f"('{ALICE.tenant_id}', '{ALICE.user_id}', {model}ARRAY[{named}]::uuid[])"
    )
    return "\n".join(line for (line,) in lines)
