"""Page tokens, request ids, corpus changes and conversions of the memory service."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from hypothesis import strategies as st

from echomesh.memory.v1 import conversation_pb2 as cpb
from echomesh.memory.v1 import memory_pb2 as mpb
from services.memory import changes, convert, ids, paging
from services.memory.corpus import CorpusDelta
from services.memory.postgres.filters import filter_sql
from services.memory.recall import MemoryFilter
from services.runtime.errors import AppError, Reason

WORDS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 5), min_size=1)


@given(position=st.lists(st.text(), min_size=2, max_size=2))
def test_memory_page_token_gives_back_its_position(position: list[str]) -> None:
    token = paging.encode(["q", 1], position)
    assert tuple(position) == paging.decode(token, ["q", 1], str, str)


def test_memory_first_page_needs_no_token() -> None:
    assert paging.decode("", ["q"], int) is None


@given(token=st.text(min_size=1))
def test_memory_page_token_of_anything_else_is_refused(token: str) -> None:
    with pytest.raises(AppError) as caught:
        paging.decode(token, ["q"], int)
    assert caught.value.reason == Reason.INVALID_PAGE_TOKEN


def test_memory_page_token_is_refused_for_another_query_or_shape() -> None:
    token = paging.encode(["q"], ["5"])
    for query, parsers in ((["p"], [int]), (["q"], [int, int]), (["q"], [datetime.fromisoformat])):
        with pytest.raises(AppError):
            paging.decode(token, query, *parsers)


def test_memory_request_ids_of_different_origins_never_meet() -> None:
    given_ids = ["x", "t:x", "r:x", "i:x"]
    makers = (ids.appended_id, ids.turn_message_id, ids.turn_reply_id)
    made = [make(text) for make in makers for text in given_ids]
    assert len(made) == len(set(made))


def test_memory_body_hash_is_independent_of_field_order_only() -> None:
    assert ids.body_hash({"a": 1, "b": 2}) == ids.body_hash({"b": 2, "a": 1})
    assert ids.body_hash({"a": 1}) != ids.body_hash({"a": 2})


@given(st.lists(st.tuples(WORDS, st.sampled_from(["Ann", "Ben"]))))
def test_memory_corpus_changes_that_cancel_out_change_nothing(
    memories: list[tuple[dict[str, int], str]],
) -> None:
    delta = CorpusDelta()
    for terms, speaker in memories:
        delta.add(terms, speaker)
    documents: Counter[str] = Counter(term for terms, _ in memories for term in terms)
    assert dict(documents) == dict(zip(*delta.sorted_terms(), strict=True))
    assert sorted(documents) == delta.sorted_terms()[0]
    for terms, speaker in memories:
        delta.remove(terms, speaker)
    assert (
        delta.sorted_terms(),
        delta.sorted_speakers(),
        delta.documents,
    ) == (([], []), ([], []), 0)


def test_memory_filter_without_conditions_adds_no_sql() -> None:
    assert filter_sql(MemoryFilter(), first=3) == ("", [])


def test_memory_filter_numbers_its_parameters_from_the_first() -> None:
    narrowed = MemoryFilter(speaker="Ann", metadata={"a": "b"})
    sql, values = filter_sql(narrowed, first=3)
    assert sql == " AND m.speaker = $3 AND m.metadata @> $4::jsonb"
    assert values == ["Ann", '{"a": "b"}']


def test_memory_every_enum_value_of_the_contract_has_its_stored_form() -> None:
    for value in cpb.MessageRole.values():
        if value:
            assert convert.role(value) in ("user", "assistant")
    kinds = {convert.kind(value, "fact") for value in mpb.MemoryKind.values()}
    assert {"episodic", "fact", "preference", "summary"} == kinds
    for value in cpb.FinishReason.values():
        stored = convert.finish_reason(value)
        assert cpb.FinishReason.Value(f"FINISH_REASON_{stored.upper()}") == value


def update(**more: object) -> mpb.UpdateMemoryRequest:
    values: dict[str, object] = {
        "memory": mpb.Memory(id="5e7c1e0a-6f0c-4a53-9b3e-0d6f2b5c9a11", text="t"),
        "update_mask": FieldMask(paths=["text"]),
        **more,
    }
    return mpb.UpdateMemoryRequest(request_id="u", **values)  # type: ignore[arg-type]


def test_memory_update_takes_the_masked_fields_only() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    change = changes.from_request(update(), now)
    assert (change.text, change.kind, change.said_at, change.metadata) == ("t", None, None, None)


@pytest.mark.parametrize(
    "request_",
    [
        update(update_mask=FieldMask()),
        update(update_mask=FieldMask(paths=["id"])),
        update(memory=mpb.Memory(id="x", text="t")),
        update(memory=mpb.Memory(text="")),
        update(memory=mpb.Memory(text="x" * 40_000)),
        update(update_mask=FieldMask(paths=["kind"])),
        update(update_mask=FieldMask(paths=["time"])),
        update(
            memory=mpb.Memory(metadata={str(i): "v" for i in range(40)}),
            update_mask=FieldMask(paths=["metadata"]),
        ),
    ],
)
def test_memory_update_that_makes_no_sense_is_refused(request_: mpb.UpdateMemoryRequest) -> None:
    with pytest.raises(AppError) as caught:
        changes.from_request(request_, datetime(2026, 1, 1, tzinfo=UTC))
    assert caught.value.reason == Reason.INVALID_REQUEST


@given(sizes=st.lists(st.integers(0, 900_000), max_size=12), size=st.integers(1, 12))
def test_memory_pages_fit_a_message_lose_nothing_and_always_go_on(
    sizes: list[int], size: int
) -> None:
    left = ["x" * n for n in sizes]
    seen: list[int] = []
    while left:
        page, more = paging.cut(left[: size + 1], size, lambda text: text)
        assert 1 <= len(page) <= size
        assert len(page) == 1 or sum(map(len, page)) <= paging.MAX_PAGE_BYTES
        seen += map(len, page)
        left = left[len(page) :]
        assert more is bool(left)
    assert seen == sizes
