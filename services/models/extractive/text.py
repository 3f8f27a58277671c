"""Sentences, stemmed words and word weights: the lexical ground the responder stands on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import snowballstemmer

_STOP_TEXT = """
    a an the and or but if then of to in on at by for with from as is are was were be been being am
    do does did doing done has have had having i me my mine we us our ours you your yours he him his
    she her hers it its they them their theirs this that these those what which who whom whose when
    where why how would could should can will shall may might must not no so than too very just s t
    d ll m re ve don didn doesn isn aren wasn weren won wouldn couldn shouldn haven hasn hadn about
    into over up down out there here"""
STOP_WORDS = frozenset(_STOP_TEXT.split())

# Stemming a word costs ~30 us; this keeps the words that many users use.
_STEM_CACHE_WORDS = 65_536

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+")
_TOKEN = re.compile(r"[a-z0-9]+")
_stemmer = snowballstemmer.stemmer("english")


@lru_cache(maxsize=_STEM_CACHE_WORDS)
def _stem(token: str) -> str:
    return str(_stemmer.stemWord(token))


def plain_quotes(text: str) -> str:
    """Returns `text` with typographic apostrophes made plain, so that one pattern fits both."""
    return text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


def words(text: str) -> list[str]:
    """Returns the stemmed content words of `text` in order: lower case, no `'s`, no stop words."""
    tokens = _TOKEN.findall(plain_quotes(text.lower()).replace("'s", " "))
    return [_stem(token) for token in tokens if token not in STOP_WORDS]


def sentences(text: str) -> list[str]:
    """Splits `text` into its stripped sentences; one without an end mark is one sentence."""
    return [part for piece in _SENTENCE_END.split(text) if (part := piece.strip())] or [text]


def is_question(sentence: str) -> bool:
    """Whether a sentence asks something; in chat the mark is more reliable than the word order."""
    return "?" in sentence


def statements(text: str) -> str:
    """Returns `text` without its questions."""
    return " ".join(part for part in sentences(text) if not is_question(part))


class WordWeights:
    """Inverse document frequencies over a set of texts: `ln(1 + (N - df + .5) / (df + .5))`.

    Args:
        documents: the words of each text; a word counts once a text.
        total: how many texts the corpus has when `documents` is only a part of it.

    """

    def __init__(self, documents: Iterable[Sequence[str]], total: int | None = None) -> None:
        self._frequency: dict[str, int] = {}
        count = 0
        for document in documents:
            count += 1
            for word in set(document):
                self._frequency[word] = self._frequency.get(word, 0) + 1
        self._total = max(count, total or 0)

    def __getitem__(self, word: str) -> float:
        df = self._frequency.get(word, 0)
        return math.log(1 + (self._total - df + 0.5) / (df + 0.5))

    def share(self, wanted: frozenset[str], present: Iterable[str]) -> float:
        """Returns the weight of the `wanted` words that are `present`, as a share (0..1) of all."""
        total = sum(self[word] for word in wanted)
        return sum(self[word] for word in wanted.intersection(present)) / total if total else 0.0
