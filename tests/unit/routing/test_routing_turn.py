"""The pure parts of a turn: frames, text, targets, personas."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.routing import domain
from services.routing.domain import (
    Accepted,
    BegunTurn,
    Final,
    Model,
    PastMessage,
    QueryType,
    Recollection,
    Restart,
    StoreResult,
    TextDelta,
    Tier,
    Tool,
    TurnRequest,
    Usage,
)
from services.routing.fallback import choose_targets, choose_tier
from services.routing.persona import PersonaError, load_personas, parse_persona, pick_persona
from services.routing.prompting import prompt_limit
from services.routing.remembering import NOT_SENT, result_of
from services.routing.turn import (
    MAX_REPLY_BYTES,
    FrameSequence,
    Transcript,
    rerun_reason,
    usable_hits,
    user_name,
)
from services.runtime.errors import AppError, Reason

TURN = TurnRequest("r1", "c1", "Where do I live?")
ACCEPTED = Accepted("r1", "c1", "", replayed=False, assistant_name="Echo")
FINAL = Final(
    "", "", domain.FinishReason.STOP, StoreResult.STORED, StoreResult.STORED, (), Usage(),
    Tier.FAST, "m", 0.1, 0.2, "", (),
)  # fmt: skip
LLM, TOOLS = Model("llm"), Model("able", tools=True)
EXTRACTIVE = Model("extractive", generative=False)


def test_frames_are_numbered_from_one_between_accepted_and_final() -> None:
    sequence = FrameSequence()
    with pytest.raises(ValueError, match="accepted"):
        sequence.number(TextDelta("x"))
    assert [sequence.number(f) for f in (ACCEPTED, TextDelta("x"), FINAL)] == [1, 2, 3]
    with pytest.raises(ValueError, match="final"):
        sequence.number(TextDelta("x"))


def test_text_of_a_failed_attempt_stays_until_another_one_speaks() -> None:
    transcript = Transcript()
    transcript.add("half", "a", 0.1)
    transcript.attempt_failed("a broke off")
    assert transcript.text == "half"
    assert transcript.add("whole", "b", 0.4) == [Restart("a broke off"), TextDelta("whole")]
    assert (transcript.text, transcript.model, transcript.first_text_s) == ("whole", "b", 0.4)


def test_a_failure_before_any_text_needs_no_restart() -> None:
    transcript = Transcript()
    transcript.attempt_failed("a broke off")
    assert transcript.add("whole", "b", 0.4) == [TextDelta("whole")]


@given(st.lists(st.text(min_size=1, max_size=50), max_size=10), st.integers(0, 40))
def test_a_reply_never_grows_beyond_what_memory_takes(pieces: list[str], room: int) -> None:
    transcript = Transcript(size_bytes=MAX_REPLY_BYTES - room)
    for piece in pieces:
        transcript.add(piece, "m", 0.0)
    assert len(transcript.text.encode()) <= room
    assert "".join(pieces).startswith(transcript.text) or len(pieces) > 1


def test_an_epoch_above_one_voids_earlier_text() -> None:
    message = PastMessage("m", "c1", 1, from_assistant=False, speaker="", text="")
    assert rerun_reason(None) == rerun_reason(BegunTurn(message, 1)) == ""
    assert "epoch 2" in rerun_reason(BegunTurn(message, 2))


def test_only_what_was_said_before_the_message_may_be_evidence() -> None:
    message = PastMessage("m", "c1", 5, from_assistant=False, speaker="", text=TURN.text)
    before = Recollection("1", "I live in Leeds", 1.0, conversation_id="c1", seq=4)
    itself = Recollection("2", TURN.text, 1.0, conversation_id="c1", seq=5)
    elsewhere = Recollection("3", TURN.text, 1.0, conversation_id="c2", seq=9)
    told = Recollection("4", "I am 34", 1.0)
    hits = (before, itself, elsewhere, told)
    assert usable_hits(hits, TURN, message) == (before, elsewhere, told)
    assert usable_hits(hits, TURN, None) == (before, elsewhere, told)


def test_the_user_is_who_the_call_says_or_who_the_memories_say() -> None:
    hits = [
        Recollection("1", "", 1.0, speaker="Maya"),
        Recollection("2", "", 1.0, speaker="user"),
        Recollection("3", "", 1.0, speaker="Echo", from_assistant=True),
    ]
    assert user_name(TURN, hits) == "Maya"
    assert user_name(TURN, []) == ""
    assert user_name(TurnRequest("r", "c", "t", speaker="Ana"), hits) == "Ana"


def test_the_model_asked_for_comes_first_and_the_extractive_one_last() -> None:
    models = [EXTRACTIVE, LLM, TOOLS]
    order = [t.model.id for t in choose_targets(TURN, QueryType.KNOWLEDGE, models, lambda _: True)]
    assert order == ["llm", "able", "extractive"]
    asked = TurnRequest("r", "c", "t", model="able")
    assert choose_targets(asked, QueryType.KNOWLEDGE, models, lambda _: True)[0].model.id == "able"


def test_a_small_model_is_asked_about_the_past_only_where_nobody_can_quote_it() -> None:
    small = Model("small", parameters=134_000_000)
    large = Model("large", parameters=7_000_000_000)

    def order(query_type: QueryType, *models: Model, turn: TurnRequest = TURN) -> list[str]:
        targets = choose_targets(turn, query_type, models, lambda _: True)
        return [target.model.id for target in targets]

    assert order(QueryType.RECALL, small, EXTRACTIVE) == ["extractive", "small"]
    assert order(QueryType.KNOWLEDGE, small, EXTRACTIVE) == ["small", "extractive"]
    assert order(QueryType.RECALL, small, EXTRACTIVE, large) == ["large", "extractive", "small"]
    assert order(QueryType.RECALL, LLM, EXTRACTIVE) == ["llm", "extractive"]
    asked = TurnRequest("r", "c", "t", model="small")
    assert order(QueryType.RECALL, EXTRACTIVE, small, turn=asked) == ["small", "extractive"]


def test_a_target_behind_an_open_breaker_is_used_only_if_nothing_else_is_left() -> None:
    targets = choose_targets(
        TURN, QueryType.KNOWLEDGE, [LLM, EXTRACTIVE], lambda name: name != "llm"
    )
    assert [t.model.id for t in targets] == ["extractive"]
    assert [
        t.model.id for t in choose_targets(TURN, QueryType.KNOWLEDGE, [LLM], lambda _: False)
    ] == ["llm"]


@pytest.mark.parametrize(
    ("turn", "models", "reason"),
    [
        (TurnRequest("r", "c", "t", model="no"), [LLM], Reason.NOT_FOUND),
        (TurnRequest("r", "c", "t", tools=(Tool("x", "", "{}"),)), [LLM], "MODEL_LACKS_ABILITY"),
        (
            TurnRequest("r", "c", "t", model="llm", tools=(Tool("x", "", "{}"),)),
            [LLM, TOOLS],
            "MODEL_LACKS_ABILITY",
        ),
        (TurnRequest("r", "c", "t", json_schema="{}"), [TOOLS], "MODEL_LACKS_ABILITY"),
        (TURN, [Model("llm", ready=False)], Reason.MODEL_UNAVAILABLE),
    ],
)
def test_what_no_model_can_do_is_refused(
    turn: TurnRequest, models: list[Model], reason: str
) -> None:
    with pytest.raises(AppError) as refused:
        choose_targets(turn, QueryType.KNOWLEDGE, models, lambda _: True)
    assert refused.value.reason == reason


def test_the_tier_is_the_clients_or_the_messages_raised_to_what_can_be_done() -> None:
    wanted = TurnRequest("r", "c", "t", tier=Tier.INSTANT)
    assert choose_tier(wanted, QueryType.CODE, 4.0) is Tier.INSTANT
    assert choose_tier(TURN, QueryType.SMALL_TALK, None) is Tier.INSTANT
    assert choose_tier(TURN, QueryType.SMALL_TALK, 1.2) is Tier.FAST
    assert choose_tier(TURN, QueryType.SMALL_TALK, 4.0) is Tier.STANDARD
    assert choose_tier(TURN, QueryType.RECALL, 0.1) is Tier.FAST


def test_a_prompt_leaves_the_model_room_for_its_reply() -> None:
    assert prompt_limit(Model("m", context_length=2048), Tier.STANDARD, 0) == 1536
    assert prompt_limit(Model("m", context_length=2048), Tier.STANDARD, 2000) == 48
    assert prompt_limit(Model("m", context_length=131072), Tier.INSTANT, 0) == 1500
    small = Model("m", context_length=8192, parameters=134_000_000)
    assert prompt_limit(small, Tier.STANDARD, 0) == 400


def test_the_default_persona_has_a_name_a_style_and_boundaries() -> None:
    folder = Path(parse_persona.__code__.co_filename).parent / "personas"
    persona = pick_persona(load_personas(folder), "")
    assert persona.name == "Echo"
    assert persona.prompt().startswith("You are Echo")
    assert all(line in persona.prompt() for line in (*persona.style, *persona.boundaries))


@pytest.mark.parametrize(
    "text", ["", "name = 3", 'name = "A"\nmood = "x"', "name =", 'name = "A"\nstyle = "x"']
)
def test_a_persona_file_that_is_not_valid_is_refused_by_name(text: str) -> None:
    with pytest.raises(PersonaError, match="persona mine"):
        parse_persona("mine", text)


def test_an_unknown_persona_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "default.toml").write_text('name = "Echo"')
    with pytest.raises(AppError) as unknown:
        pick_persona(load_personas(tmp_path), "nobody")
    assert unknown.value.reason is Reason.NOT_FOUND


def test_a_failed_write_is_called_not_stored_only_when_that_is_sure() -> None:
    lost = AppError(Reason.DEPENDENCY_UNAVAILABLE, "lost")
    never_left = AppError(Reason.DEPENDENCY_UNAVAILABLE, "", metadata={NOT_SENT: "true"})
    full = AppError(Reason.STORAGE_FULL, "full")
    deleted = AppError(Reason.NOT_FOUND, "no such turn")
    assert [result_of(error) for error in (lost, never_left, full, deleted)] == [
        StoreResult.UNKNOWN,
        StoreResult.NOT_STORED,
        StoreResult.NOT_STORED,
        StoreResult.NOT_STORED,
    ]
