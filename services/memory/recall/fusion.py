"""Exact scores of every signal for all candidates, and their fusion into one.

Fusing the truncated lists of the retrievers loses 1.5 to 7 points of recall@10: a memory that one
list cut off counts there as worthless. So every signal is computed for every candidate first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.memory.recall.text import query_weights, saturation
from services.memory.recall.types import (
    TOKEN_DIMENSIONS,
    Asked,
    Candidate,
    CorpusStats,
    Query,
    RecallWeights,
    once_each,
)

Scores = NDArray[np.float64]
"""One float64 for each candidate; NaN where a signal could not be had."""

TINY = 1e-9
"""Keeps a division by a best score of zero harmless."""


@dataclass(frozen=True, slots=True)
class Signals:
    """The raw scores and the fused result, one value for each candidate.

    ``keyword``, ``dense`` and ``max_sim`` are normalised shares of the best; ``dense`` and
    ``max_sim`` are NaN where a candidate lacks the signal.
    """

    bm25: Scores
    cosine: Scores
    keyword: Scores
    dense: Scores
    max_sim: Scores
    speaker: Scores
    fused: Scores


def fuse(
    query: Query, candidates: Sequence[Candidate], stats: CorpusStats, weights: RecallWeights
) -> Signals:
    """Return the signals of all candidates and their fusion (recall recipe, step 5)."""
    bm25 = _bm25(candidates, query_weights(query.terms, stats.document_frequency, stats.documents))
    cosine = _cosines(query, candidates)
    late = _max_sims(query, candidates)
    keyword, dense = _share(bm25), _share(_floored(cosine, weights.floor))
    max_sim = _share(_floored(late, weights.floor))
    speaker = weights.speaker * _spoken_by(query.asked, candidates)
    total = _mean_of_known((keyword, dense, max_sim)) + speaker
    fused = total / max(float(total.max(initial=0.0)), TINY)
    return Signals(bm25, cosine, keyword, dense, max_sim, speaker, fused)


def _bm25(candidates: Sequence[Candidate], weights: Mapping[str, float]) -> Scores:
    def score(terms: Mapping[str, int]) -> float:
        return sum(w * saturation(terms[term]) for term, w in weights.items() if term in terms)

    return np.array([score(candidate.terms) for candidate in candidates], np.float64)


def _cosines(query: Query, candidates: Sequence[Candidate]) -> Scores:
    scores = np.full(len(candidates), np.nan)
    if query.vector is None:
        return scores
    wanted = np.asarray(query.vector, np.float32)
    known = [i for i, c in enumerate(candidates) if len(c.vector or b"") == 2 * wanted.size]
    if known:
        rows = np.frombuffer(b"".join(_widened(candidates[i]) for i in known), np.float32)
        scores[known] = rows.reshape(len(known), -1) @ wanted
    return scores


@once_each
def _widened(candidate: Candidate) -> bytes:
    """Return the vector as float32: numpy takes long over fp16."""
    return np.frombuffer(candidate.vector or b"", "<f2").astype(np.float32).tobytes()


def _max_sims(query: Query, candidates: Sequence[Candidate]) -> Scores:
    """Return the mean over the query's tokens of the best cosine with a token of the candidate."""
    scores = np.full(len(candidates), np.nan)
    packed = [(i, c.token_vectors) for i, c in enumerate(candidates) if c.token_vectors]
    if not query.token_vectors or not packed:
        return scores
    starts = np.cumsum([0] + [len(rows) // TOKEN_DIMENSIONS for _, rows in packed[:-1]])
    rows = _token_rows(b"".join(rows for _, rows in packed))
    likeness = (_token_rows(query.token_vectors) / np.float32(127 * 127)) @ rows.T
    scores[[i for i, _ in packed]] = np.maximum.reduceat(likeness, starts, axis=1).mean(axis=0)
    return scores


def _token_rows(packed: bytes) -> NDArray[np.float32]:
    rows = np.frombuffer(packed, np.int8).reshape(-1, TOKEN_DIMENSIONS)
    return rows.astype(np.float32)


def _spoken_by(asked: Asked | None, candidates: Sequence[Candidate]) -> Scores:
    def is_asked(candidate: Candidate) -> bool:
        if asked is None:
            return False
        if asked.speaker is not None:
            return candidate.speaker.lower() == asked.speaker.lower()
        return candidate.role == asked.role

    return np.array([float(is_asked(candidate)) for candidate in candidates], np.float64)


def _floored(scores: Scores, quantile: float) -> Scores:
    """Subtract the candidates' ``quantile``: cosines have no natural zero."""
    known = scores[~np.isnan(scores)]
    return scores - np.quantile(known, quantile) if known.size else scores


def _share(scores: Scores) -> Scores:
    best = float(np.nanmax(scores, initial=0.0))
    return np.asarray(np.maximum(scores, 0.0) / max(best, TINY))


def _mean_of_known(signals: Sequence[Scores]) -> Scores:
    """Average the signals each candidate has (keyword always): no vector yet is no evidence."""
    stacked = np.stack(signals)
    known = ~np.isnan(stacked)
    return np.asarray(np.where(known, stacked, 0.0).sum(axis=0) / known.sum(axis=0))
