"""A prompt keeps its order and its token limit whatever it is made of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.routing.assemble import (
    MAX_MEMORY_CHARS,
    MESSAGE_OVERHEAD_TOKENS,
    PromptParts,
    assemble,
    estimate_tokens,
    excerpt,
    memory_line,
    select_memories,
)
from services.routing.domain import PastMessage, Recollection, Role

DAY = datetime(2026, 11, 6, 12, tzinfo=UTC)


def memory(number: int, text: str, score: float, message_id: str = "") -> Recollection:
    when = DAY - timedelta(days=number)
    return Recollection(f"m{number}", text, score, message_id=message_id, speaker="Maya", time=when)


def past(number: int, text: str) -> PastMessage:
    return PastMessage(f"p{number}", "c", number, number % 2 == 0, "Maya", text)


def parts(**changes: object) -> PromptParts:
    given_parts: dict[str, object] = {
        "persona": "You are Echo.",
        "message": "Where do I live?",
        "today": DAY,
        "user_name": "Maya",
    }
    return PromptParts(**(given_parts | changes))  # type: ignore[arg-type]


def test_the_stable_part_comes_first_and_the_message_last() -> None:
    prompt = assemble(
        parts(
            summary="They talk about boats.",
            memories=[memory(1, "I live in Bristol", 1.0)],
            recent=[past(1, "hello"), past(2, "hi Maya")],
        ),
        2000,
    )
    system = prompt.messages[0]
    roles = [message.role for message in prompt.messages]
    assert roles == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER]
    assert system.content.startswith("You are Echo.\n\nThey talk about boats.\n\nToday is Friday")
    assert system.content.endswith("- [2026-11-05] Maya: I live in Bristol")
    assert prompt.messages[-1].content == "Where do I live?"


def test_what_was_forgotten_leaves_no_empty_message_behind() -> None:
    said = [past(1, "hello"), past(2, ""), past(3, ""), past(4, "hi Maya")]
    prompt = assemble(parts(recent=said), 2000)
    assert [message.content for message in prompt.messages[1:-1]] == ["hello", "hi Maya"]


def test_of_two_memories_that_say_the_same_one_gives_way_to_another() -> None:
    chosen = select_memories(
        [
            memory(1, "the locker code is 4719", 1.0),
            memory(2, "the locker code is 4719 !", 0.98),
            memory(3, "Clive sighs when asked", 0.8),
        ],
        2 * estimate_tokens(memory_line(memory(1, "the locker code is 4719", 1.0))) + 4,
        estimate_tokens,
    )
    assert [item.id for item in chosen] == ["m1", "m3"]


def test_memories_read_in_the_order_of_time_and_are_reported_best_first() -> None:
    old, new = memory(200, "I live in Leeds", 1.0), memory(2, "Bristol is home now", 0.9)
    prompt = assemble(parts(memories=[old, new]), 2000)
    system = prompt.messages[0].content
    assert system.index("Leeds") < system.index("Bristol")
    assert prompt.memories == (old, new)


def test_a_memory_that_is_among_the_recent_turns_is_not_said_twice() -> None:
    shown = past(1, "I live in Bristol")
    prompt = assemble(
        parts(memories=[memory(1, shown.text, 1.0, message_id="p1")], recent=[shown]), 2000
    )
    assert prompt.memories == ()


def test_memories_fill_the_tokens_there_are() -> None:
    memories = [memory(n, f"fact {n} about a harbour town", 1 - n / 100) for n in range(24)]
    assert len(assemble(parts(memories=memories), 1500).memories) == 24
    few = assemble(parts(memories=memories), 300)
    assert 4 < len(few.memories) < 24
    assert few.tokens <= 300


def test_of_a_long_note_the_part_about_the_message_is_shown() -> None:
    note = "The weather was grey. " * 300 + "I live in Bristol. " + "Nothing happened. " * 300
    prompt = assemble(parts(message="Where in Bristol?", memories=[memory(1, note, 1.0)]), 1500)
    assert "I live in Bristol." in prompt.messages[0].content
    assert prompt.tokens < 600


def test_a_part_of_a_note_is_marked_as_a_part_and_a_short_note_is_whole() -> None:
    assert excerpt("I live in Bristol", "Bristol?") == "I live in Bristol"
    part = excerpt("word " * 1000, "nothing of it")
    assert part.startswith("... word")
    assert part.endswith(" ...")
    assert len(part) <= MAX_MEMORY_CHARS + 8


@given(
    limit=st.integers(0, 600),
    memories=st.lists(st.text(min_size=1, max_size=200), max_size=20),
    recent=st.lists(st.text(min_size=1, max_size=200), max_size=20),
)
def test_the_limit_holds_except_for_what_must_be_said(
    limit: int, memories: list[str], recent: list[str]
) -> None:
    bare = assemble(parts(), 0)
    prompt = assemble(
        parts(
            memories=[memory(n, text, 1.0 / (n + 1)) for n, text in enumerate(memories)],
            recent=[past(n, text) for n, text in enumerate(recent)],
        ),
        limit,
    )
    # Joining texts may round up once for each of the system message's parts.
    slack = 40 + MESSAGE_OVERHEAD_TOKENS
    assert prompt.tokens <= max(limit, bare.tokens) + slack
    assert prompt.messages[-1].content == "Where do I live?"


def test_tokens_are_estimated_for_scripts_without_spaces_too() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("a cat sat on the mat") >= 6
    assert estimate_tokens("猫が座った" * 10) >= 40
