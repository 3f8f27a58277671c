"""Every message gets a query type and a tier without a model call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.routing.classify import classify, default_tier, recalls_by_keyword
from services.routing.domain import QueryType, Tier

EXAMPLES = {
    "Hi there": QueryType.SMALL_TALK,
    "Thanks, good night!": QueryType.SMALL_TALK,
    "how are you?": QueryType.SMALL_TALK,
    "What is my locker code?": QueryType.RECALL,
    "Where do I live now?": QueryType.RECALL,
    "When did Joanna get married?": QueryType.RECALL,
    "remind me what Clive does": QueryType.RECALL,
    "My locker code is 4719.": QueryType.STATEMENT,
    "I sold the car on Thursday": QueryType.STATEMENT,
    "What is the capital of Peru?": QueryType.KNOWLEDGE,
    "Why is the sky blue?": QueryType.REASONING,
    "Should I take the job in Bristol?": QueryType.REASONING,
    "Write me a poem about herons": QueryType.CREATIVE,
    "Can you refactor this function for me?": QueryType.CODE,
    "def f(x): return x * 2 -- what does it do": QueryType.CODE,
}


@pytest.mark.parametrize(("text", "expected"), EXAMPLES.items())
def test_plain_messages_are_told_apart(text: str, expected: QueryType) -> None:
    assert classify(text) is expected


@given(st.text(max_size=400))
def test_any_text_gets_a_type_and_a_tier(text: str) -> None:
    query_type = classify(text)
    assert query_type is not QueryType.UNSPECIFIED
    assert default_tier(query_type) is not Tier.UNSPECIFIED


def test_only_small_talk_spares_the_embeddings() -> None:
    assert [kind for kind in QueryType if recalls_by_keyword(kind)] == [QueryType.SMALL_TALK]
