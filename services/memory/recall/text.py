"""Text to terms to sparse vectors: the keyword half of recall.

Document value ``tf*(k1+1)/(tf+k1)`` is BM25 with b = 0: it holds no average length, so a stored
vector never goes stale. The query carries the IDF of one user's corpus, so the index needs no
modifier of its own and every engine scores alike.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

import snowballstemmer

from services.memory.recall.types import SparseVector

BM25_K1 = 0.9
"""Saturation of a repeated term; 0.9 measured best on short turns."""

STEM_CACHE_ITEMS = 1 << 16
"""Distinct words kept with their stems: the pure-Python stemmer takes ~30 us a word."""

MAX_TERM_CHARS = 64
"""Longer runs of letters and digits are keys or noise; their head is enough to find them."""

_MONTHS = "January February March April May June July August September October November December"
MONTHS = _MONTHS.split()

_STOP_WORDS = """
    a an the and or but if then of to in on at by for with from as is are was were be been being am
    do does did doing done has have had having i me my mine we us our ours you your yours he him his
    she her hers it its they them their theirs this that these those what which who whom whose when
    where why how would could should can will shall may might must not no so than too very just s t
    d ll m re ve don didn doesn isn aren wasn weren won wouldn couldn shouldn haven hasn hadn about
    into over up down out there here
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that say nothing about a subject; measured with the recall recipe."""

_MAY = re.compile(r"\bMay\b(?!\s+(?:I|we|you|he|she|it|they)\b)")
_MAY_MONTH = "maymonth"
"""The month as a term of its own: "may" is a stop word."""

_WORD = re.compile(r"[a-z0-9]+")
_OTHER_WORD = re.compile(r"[^\W_]+")
_stemmer = snowballstemmer.stemmer("english")


@lru_cache(maxsize=STEM_CACHE_ITEMS)
def stem(word: str) -> str:
    """Return the Snowball English stem of one lower-case word."""
    return str(_stemmer.stemWord(word))


def words(text: str) -> list[str]:
    """Return the lower-case words of ``text`` with possessives dropped, stop words kept."""
    plain = _MAY.sub(_MAY_MONTH, text).lower().replace("\u2019", "'").replace("'s", " ")
    pattern = _WORD if plain.isascii() else _OTHER_WORD
    return [word[:MAX_TERM_CHARS] for word in pattern.findall(plain)]


def terms(text: str) -> list[str]:
    """Return the stemmed terms of ``text`` in order, stop words removed."""
    return [stem(word) for word in words(text) if word not in STOP_WORDS]


def dated(text: str, time: datetime) -> str:
    """Return ``text`` with its day in front, as ``"8 May, 2023 text"``: dates become findable."""
    return f"{time.day} {MONTHS[time.month - 1]}, {time.year} {text}"


def document_terms(text: str, time: datetime) -> dict[str, int]:
    """Return the term counts under which a memory said at ``time`` is filed."""
    return dict(Counter(terms(dated(text, time))))


@lru_cache(maxsize=STEM_CACHE_ITEMS)
def term_id(term: str) -> int:
    """Return the stable unsigned 32-bit id of a term in sparse vectors."""
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=4).digest(), "little")


def saturation(count: int) -> float:
    """Return BM25's value of a term that occurs ``count`` times in a document (b = 0)."""
    return count * (BM25_K1 + 1) / (count + BM25_K1)


def inverse_document_frequency(document_frequency: int, documents: int) -> float:
    """Return BM25's IDF, ``ln(1 + (N - df + .5) / (df + .5))``, of one user's corpus."""
    known = min(document_frequency, documents)
    return math.log(1 + (documents - known + 0.5) / (known + 0.5))


def document_vector(counts: Mapping[str, int]) -> SparseVector:
    """Return the sparse vector that the index stores for term counts."""
    return _sparse({term: saturation(count) for term, count in counts.items()})


def query_weights(
    counts: Mapping[str, int], document_frequency: Mapping[str, int], documents: int
) -> dict[str, float]:
    """Return each query term's weight, count x IDF; terms nobody said are left out."""
    return {
        term: count * inverse_document_frequency(document_frequency[term], documents)
        for term, count in counts.items()
        if document_frequency.get(term, 0) > 0
    }


def query_vector(weights: Mapping[str, float]) -> SparseVector:
    """Return the sparse vector to search with, from :func:`query_weights`."""
    return _sparse(weights)


def _sparse(values: Mapping[str, float]) -> SparseVector:
    merged: dict[int, float] = {}
    for term, value in values.items():
        key = term_id(term)
        merged[key] = merged.get(key, 0.0) + value
    indices = tuple(sorted(merged))
    return SparseVector(indices=indices, values=tuple(merged[i] for i in indices))
