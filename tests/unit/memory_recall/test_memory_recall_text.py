"""Text becomes terms and sparse vectors: stable, stemmed, dated, weighted by one user's IDF."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.memory.recall import document_terms, document_vector, query_vector, query_weights
from services.memory.recall import text as recall_text

MAY_8 = datetime(2023, 5, 8, 23, 30, tzinfo=UTC)


def test_recall_terms_are_stemmed_without_stop_words_and_possessives() -> None:
    said = recall_text.terms("The dog's running and Anna\u2019s dogs RAN, didn't they?")
    assert said == ["dog", "run", "anna", "dog", "ran"]


def test_recall_files_a_memory_under_its_day_too() -> None:
    assert document_terms("Lunch, lunch!", datetime(2023, 6, 1, tzinfo=UTC)) == {
        "1": 1,
        "june": 1,
        "2023": 1,
        "lunch": 2,
    }
    assert recall_text.dated("Lunch", MAY_8) == "8 May, 2023 Lunch"


def test_recall_tells_the_month_of_may_from_the_verb() -> None:
    (month,) = set(document_terms("", MAY_8)) - {"8", "2023"}
    assert recall_text.terms("What happened in May?") == ["happen", month]
    assert recall_text.terms("May I ask what may come?") == ["ask", "come"]


def test_recall_finds_words_of_other_scripts() -> None:
    assert recall_text.terms("Крокодил ест 北京 café") == ["крокодил", "ест", "北京", "café"]


def test_recall_document_value_saturates_and_forgets_the_length() -> None:
    vector = document_vector({"once": 1, "thrice": 3})
    values = dict(zip(vector.indices, vector.values, strict=True))
    assert values[recall_text.term_id("once")] == pytest.approx(1.0)
    assert values[recall_text.term_id("thrice")] == pytest.approx(3 * 1.9 / 3.9)


def test_recall_query_weight_is_count_times_idf_and_unknown_terms_are_left_out() -> None:
    weights = query_weights({"rare": 2, "common": 1, "never": 1}, {"rare": 1, "common": 9}, 10)
    assert weights == pytest.approx(
        {"rare": 2 * math.log(1 + 9.5 / 1.5), "common": math.log(1 + 1.5 / 9.5)}
    )


def test_recall_idf_survives_a_frequency_above_the_number_of_documents() -> None:
    assert recall_text.inverse_document_frequency(12, 10) > 0


def test_recall_term_ids_never_change() -> None:
    """Stored sparse vectors depend on them: another value here means a new index format."""
    assert recall_text.term_id("locker") == 3842035973


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.integers(1, 20), max_size=30))
def test_recall_sparse_vectors_are_ascending_unique_and_32_bit(counts: dict[str, int]) -> None:
    for vector in (document_vector(counts), query_vector({t: float(c) for t, c in counts.items()})):
        assert list(vector.indices) == sorted(set(vector.indices))
        assert all(0 <= index < 2**32 for index in vector.indices)
        assert len(vector.indices) == len(vector.values)
