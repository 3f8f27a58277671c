"""What a batch is made of, and in which order texts get their turn."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from services.embeddings.batching import BatchLimits, Lanes, LengthQueue, Priority

lengths = st.lists(st.integers(1, 600), max_size=80)
limits = st.builds(BatchLimits, texts=st.integers(1, 16), tokens=st.integers(1, 1024))


def drain(queue: LengthQueue[int], bounds: BatchLimits) -> list[list[int]]:
    batches = []
    while queue:
        batches.append(queue.pop(bounds))
    return batches


def filled(given_lengths: list[int]) -> LengthQueue[int]:
    queue: LengthQueue[int] = LengthQueue()
    for item, length in enumerate(given_lengths):
        queue.add(item, length)
    return queue


@given(lengths, limits)
def test_every_text_gets_into_exactly_one_batch(given_lengths: list[int], bounds: BatchLimits):
    batches = drain(filled(given_lengths), bounds)
    assert sorted(chain(*batches)) == list(range(len(given_lengths)))


@given(lengths, limits)
def test_a_batch_keeps_its_budget_unless_it_is_one_long_text(
    given_lengths: list[int], bounds: BatchLimits
):
    for batch in drain(filled(given_lengths), bounds):
        longest = max(given_lengths[item] for item in batch)
        assert len(batch) <= bounds.texts
        assert len(batch) == 1 or len(batch) * longest <= bounds.tokens


@given(lengths, limits)
def test_the_text_that_has_waited_longest_is_always_in_the_next_batch(
    given_lengths: list[int], bounds: BatchLimits
):
    queue, waiting = filled(given_lengths), list(range(len(given_lengths)))
    while queue:
        batch = queue.pop(bounds)
        assert waiting[0] in batch
        waiting = [item for item in waiting if item not in batch]


@given(lengths)
def test_little_of_a_batch_is_padding(given_lengths: list[int]):
    for batch in drain(filled(given_lengths), BatchLimits()):
        sizes = [given_lengths[item] for item in batch]
        assert max(sizes) - min(sizes) <= max(8, 0.3 * max(sizes))


@given(lengths, st.data())
def test_a_discarded_text_is_in_no_batch(given_lengths: list[int], data: st.DataObject):
    queue = filled(given_lengths)
    gone = {item for item in range(len(given_lengths)) if data.draw(st.booleans())}
    for item in gone:
        assert queue.discard(item) == given_lengths[item]
        assert queue.discard(item) is None
    kept = set(range(len(given_lengths))) - gone
    assert set(chain(*drain(queue, BatchLimits()))) == kept


def test_interactive_texts_go_before_bulk_texts():
    lanes: Lanes[str] = Lanes(BatchLimits())
    lanes.add("import", 10, Priority.BULK)
    lanes.add("question", 10, Priority.INTERACTIVE)
    assert lanes.pop() == ["question"]
    assert lanes.pop() == ["import"]
    assert lanes.pop() == []


def test_bulk_texts_get_a_turn_under_endless_interactive_load():
    lanes: Lanes[str] = Lanes(BatchLimits(texts=1, interactive_streak=3))
    lanes.add("import", 10, Priority.BULK)
    for number in range(10):
        lanes.add(f"question {number}", 10, Priority.INTERACTIVE)
    order = [lanes.pop()[0] for _ in range(len(lanes))]
    assert order.index("import") == 3


def test_a_promoted_text_goes_with_the_interactive_ones():
    lanes: Lanes[str] = Lanes(BatchLimits())
    for text in ("first", "wanted now"):
        lanes.add(text, 10, Priority.BULK)
    lanes.promote("wanted now")
    lanes.promote("not waiting at all")
    assert lanes.pop() == ["wanted now"]
    assert lanes.pop() == ["first"]
