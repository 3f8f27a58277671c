"""People ask their companion the same thing again and again."""

from __future__ import annotations

import asyncio

import pytest

from echomesh import Client, NewMessage

FACT = "My locker code is 4417."
ASIDES = (
    "My sister got a new bike.",
    "The pool was cold today.",
    "I lost the code of my suitcase.",
    "The coffee at work is awful.",
)
QUESTION = "What is my locker code?"
REPEATS = 50
INDEXED_WITHIN_S = 60.0


async def _ask_often(user: Client, reply: str, *, apart: bool) -> None:
    """Store the question and its reply many times, in conversations of their own or in one."""
    pair = (("user", QUESTION), ("assistant", reply))
    if apart:
        for n in range(REPEATS):
            await user.import_messages(f"again-{n}", [NewMessage(*turn) for turn in pair])
    else:
        await user.import_messages("again", [NewMessage(*turn) for turn in pair * REPEATS])
    async with asyncio.timeout(INDEXED_WITHIN_S):
        while (await user.index_status())[1]:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("apart", [False, True], ids=["in one conversation", "in many"])
async def test_the_fiftieth_asking_is_answered_like_the_first(client: Client, apart: bool) -> None:
    user = client.as_user(f"asks-again-{apart}")
    await user.import_messages("told", [NewMessage("user", text) for text in (FACT, *ASIDES)])
    first, _ = await user.reply(QUESTION, conversation_id="first")
    assert FACT in first
    await _ask_often(user, first, apart=apart)
    found = [hit.memory.text for hit in (await user.recall(QUESTION, limit=10)).hits]
    assert found.count(FACT) == 1
    assert QUESTION not in found
    again, final = await user.reply(QUESTION, conversation_id="last")
    assert again == first
    assert final.used_memory_ids
