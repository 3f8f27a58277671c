"""Recall: which of a user's memories answer a question, and why. Pure; no language model.

The order of work for a caller that owns the rows and the index::

    query = prepare_query(text, speakers, asker)            # names out, keywords, whom it is about
    vector = ...embed(query.dense_text)                     # then replace(query, vector=vector)
    sparse = query_vector(query_weights(query.terms, df, n))
    ids = dense top 200 | sparse top 200 | the turn after each of them
    hits = collapsed(rank(query, rows of ids, CorpusStats(n, df, speakers)))[:limit]
"""

from __future__ import annotations

from services.memory.recall.filters import MemoryFilter
from services.memory.recall.query import prepare_query
from services.memory.recall.ranking import CANDIDATES_PER_SIGNAL, DEFAULT_WEIGHTS, rank
from services.memory.recall.repeats import collapsed
from services.memory.recall.text import (
    document_terms,
    document_vector,
    query_vector,
    query_weights,
    term_id,
)
from services.memory.recall.types import (
    TOKEN_DIMENSIONS,
    Asked,
    Candidate,
    CorpusStats,
    Kind,
    Query,
    Reasons,
    RecallWeights,
    Role,
    Scored,
    SparseVector,
)

__all__ = [
    "CANDIDATES_PER_SIGNAL",
    "DEFAULT_WEIGHTS",
    "TOKEN_DIMENSIONS",
    "Asked",
    "Candidate",
    "CorpusStats",
    "Kind",
    "MemoryFilter",
    "Query",
    "Reasons",
    "RecallWeights",
    "Role",
    "Scored",
    "SparseVector",
    "collapsed",
    "document_terms",
    "document_vector",
    "prepare_query",
    "query_vector",
    "query_weights",
    "rank",
    "term_id",
]
