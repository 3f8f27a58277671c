"""Conversations and their messages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.cases import case
from tests.conformance.sdk import SdkError
from tests.conformance.world import Case


def lines(count: int, first: int = 0) -> list[dict[str, Any]]:
    """So many messages of both sides, each with a request id of its own."""
    return [
        {"role": ("user", "assistant")[i % 2], "text": f"Line {i}.", "request_id": f"line-{i}"}
        for i in range(first, first + count)
    ]


@case
async def imported_messages_come_back_in_order(it: Case) -> None:
    user = await it.user()
    done = await user.do("import_messages", conversation_id="c", messages=lines(4))
    assert done == {"stored": 4, "duplicates": 0, "refused": []}
    found = await user.do("messages", conversation_id="c")
    assert [(m["seq"], m["role"], m["text"]) for m in found] == [
        (1, "user", "Line 0."),
        (2, "assistant", "Line 1."),
        (3, "user", "Line 2."),
        (4, "assistant", "Line 3."),
    ]


@case
async def importing_again_stores_nothing_twice(it: Case) -> None:
    user = await it.user()
    await user.do("import_messages", conversation_id="c", messages=lines(3))
    done = await user.do("import_messages", conversation_id="c", messages=lines(5))
    assert done == {"stored": 2, "duplicates": 3, "refused": []}


@case
async def an_import_names_the_messages_that_were_refused(it: Case) -> None:
    """Some of a call, and all of one, which the mesh tells as an error."""
    user = await it.user()
    await user.do("import_messages", conversation_id="c", messages=lines(1))
    other = {**lines(1)[0], "text": "Something else."}
    some = await user.do("import_messages", conversation_id="c", messages=[other, *lines(1, 1)])
    assert some == {"stored": 1, "duplicates": 0, "refused": ["line-0"]}
    every = await user.do("import_messages", conversation_id="c", messages=[other])
    assert every == {"stored": 0, "duplicates": 0, "refused": ["line-0"]}


@case
async def a_role_that_is_none_is_refused(it: Case) -> None:
    """It is not taken for one of the two."""
    user = await it.user()
    assert await user.do("conversations") == []
    strange = {**lines(1)[0], "role": "narrator"}
    with pytest.raises(SdkError, match="role"):
        await user.do("import_messages", conversation_id="c", messages=[*lines(1, 1), strange])
    assert await user.do("conversations") == []


@case
async def more_messages_than_one_call_takes_are_sent_in_parts(it: Case) -> None:
    user, door = await it.one_door()
    done = await user.do("import_messages", conversation_id="c", messages=lines(501))
    assert done == {"stored": 501, "duplicates": 0, "refused": []}
    assert len(door.seen("AppendMessages")) == 2


@case
async def messages_are_listed_over_pages_both_ways(it: Case) -> None:
    user, door = await it.one_door()
    await user.do("import_messages", conversation_id="c", messages=lines(5))
    forwards = await user.do("messages", conversation_id="c", page_size=2)
    assert [m["text"] for m in forwards] == [f"Line {i}." for i in range(5)]
    assert len(door.seen("ListMessages")) == 3
    backwards = await user.do("messages", conversation_id="c", newest_first=True)
    assert backwards == forwards[::-1]


@case
async def conversations_are_listed_newest_first(it: Case) -> None:
    user = await it.user()
    for name in ("monday", "tuesday"):
        await user.do("import_messages", conversation_id=name, messages=lines(2, len(name) * 10))
    found = await user.do("conversations")
    assert [(c["id"], c["message_count"]) for c in found] == [("tuesday", 2), ("monday", 2)]


@case
async def a_deleted_conversation_is_gone_with_its_memories(it: Case) -> None:
    user = await it.user()
    await user.do("import_messages", conversation_id="c", messages=lines(3))
    assert (await user.do("recall", query="Line 2"))["hits"]
    assert await user.do("delete_conversation", conversation_id="c") == 3
    assert await user.do("conversations") == []
    assert (await user.do("recall", query="Line 2"))["hits"] == []
