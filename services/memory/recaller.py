"""Recall: from a question to ranked memories, with whatever is there to help.

The question is embedded, both halves of the index are searched, the hits are joined to the table,
rows that the index does not hold yet are added, and all of it is ranked by exact scores. Where
embeddings or the index are away, keyword recall from Postgres takes their place and the answer
says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from services.memory.embedder import Embedder
from services.memory.index import IndexHit, VectorIndex
from services.memory.model import Memory, Owner, Remembered
from services.memory.recall import (
    CANDIDATES_PER_SIGNAL,
    CorpusStats,
    MemoryFilter,
    Query,
    Reasons,
    RecallWeights,
    Scored,
    collapsed,
    prepare_query,
    query_vector,
    query_weights,
    rank,
)
from services.memory.store import RecallStore
from services.runtime.clock import Clock
from services.runtime.deadline import deadline_scope, remaining_s
from services.runtime.errors import AppError, why_left_out
from services.runtime.logs import get_logger

T = TypeVar("T")

GLIMPSE_CHARS = 1_000
"""Of the turns around a hit; enough to see what was asked, and a hundred hits fit a message."""

EMBEDDINGS, INDEX, PENDING = "embeddings", "index", "pending"
"""What an answer may have had to do without."""


@dataclass(frozen=True, slots=True)
class RecallLimits:
    """Bounds of one recall.

    ``embed_s`` and ``index_s`` bound the two helpers in seconds; a recall takes at most half of
    what its call has left for each. ``pending_rows`` not-yet-indexed rows are scored from Postgres;
    keyword recall without the index reads ``keyword_rows``, the newest.
    """

    embed_s: float = 0.4
    index_s: float = 1.0
    pending_rows: int = 500
    keyword_rows: int = 20_000


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for; ``recency_weight`` 0..1."""

    text: str
    limit: int
    narrowed: MemoryFilter = field(default_factory=MemoryFilter)
    asker: str | None = None
    excluded: frozenset[str] = frozenset()
    recency_weight: float = 0.0
    half_life: timedelta = timedelta(days=30)
    keyword_only: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """A recalled memory, why it was recalled, and what was said around it."""

    memory: Memory
    score: float
    reasons: Reasons
    previous_text: str
    next_text: str


@dataclass(frozen=True, slots=True)
class Recalled:
    """Hits, best first, and what could not take part, with why."""

    hits: Sequence[Hit]
    degraded: Mapping[str, str]


class Recaller:
    """Answers questions out of one store and one index."""

    def __init__(
        self,
        store: RecallStore,
        embedder: Embedder,
        index: VectorIndex,
        clock: Clock,
        limits: RecallLimits,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._index = index
        self._clock = clock
        self._limits = limits
        # One after the other: side by side, for want of Python's lock, all would end as the last.
        self._ranking = asyncio.Lock()

    async def recall(self, owner: Owner, question: Question) -> Recalled:
        """Return the memories that answer ``question``, best first."""
        degraded: dict[str, str] = {}
        # Before the index is searched: what it gets from now on may be missing in its answer
        # and no longer wait when the table is read.
        corpus, waiting = await self._store.overview(
            owner, _possible_terms(question), question.narrowed, self._limits.pending_rows
        )
        if not corpus.documents:
            return Recalled(hits=(), degraded={})
        stats = CorpusStats(corpus.documents, corpus.document_frequency, corpus.speakers)
        query = prepare_query(question.text, stats.speakers, question.asker)
        query = replace(query, now=self._clock.now())
        query, model = await self._embed(query, question, degraded)
        rows = await self._candidates(owner, question, query, stats, model, waiting, degraded)
        by_id = {row.candidate.memory_id: row for row in rows}
        kept = {key: row for key, row in by_id.items() if key not in question.excluded}
        async with self._ranking:
            ranked = await asyncio.to_thread(_ranked, query, list(kept.values()), stats, question)
        hits = await self._with_context(owner, ranked, kept)
        return Recalled(hits=hits, degraded=degraded)

    async def _embed(
        self, query: Query, question: Question, degraded: dict[str, str]
    ) -> tuple[Query, str]:
        if question.keyword_only:
            return query, ""
        found = await self._helped(
            EMBEDDINGS,
            self._limits.embed_s,
            lambda: self._embedder.query(query.dense_text),
            degraded,
        )
        if found is None:
            return query, ""
        embedded = replace(query, vector=found.vector, token_vectors=found.token_vectors)
        return embedded, found.model

    async def _candidates(
        self,
        owner: Owner,
        question: Question,
        query: Query,
        stats: CorpusStats,
        model: str,
        waiting: Sequence[UUID],
        degraded: dict[str, str],
    ) -> list[Remembered]:
        weights = query_weights(query.terms, stats.document_frequency, stats.documents)
        hits = await self._helped(
            INDEX,
            self._limits.index_s,
            lambda: self._search(owner, question.narrowed, query, weights),
            degraded,
        )
        ids = _uuids(hit.memory_id for hit in hits or ())
        if hits is None:
            ids = await self._keyword(owner, question.narrowed, weights)
        ids = [*dict.fromkeys([*ids, *waiting])]
        rows = await self._joined(owner, question.narrowed, model, ids, hits)
        if len(rows.pending) < self._limits.pending_rows or hits is None:
            return rows.all()
        degraded[PENDING] = "many"
        ids = await self._keyword(owner, question.narrowed, weights)
        more = await self._joined(owner, question.narrowed, model, ids, None)
        return [*rows.all(), *more.all()]

    async def _keyword(
        self, owner: Owner, narrowed: MemoryFilter, weights: dict[str, float]
    ) -> list[UUID]:
        return await self._store.keyword(
            owner, weights, narrowed, self._limits.keyword_rows, CANDIDATES_PER_SIGNAL
        )

    async def _search(
        self, owner: Owner, narrowed: MemoryFilter, query: Query, weights: dict[str, float]
    ) -> list[IndexHit]:
        """Search both halves at once; a half without anything to search with finds nothing."""
        ids = (owner.tenant_id, owner.user_id)
        sparse = query_vector(weights)
        if query.vector is None:
            return await self._index.search_sparse(*ids, sparse, CANDIDATES_PER_SIGNAL, narrowed)
        return await self._index.search_both(
            *ids, query.vector, sparse, CANDIDATES_PER_SIGNAL, narrowed
        )

    async def _joined(
        self,
        owner: Owner,
        narrowed: MemoryFilter,
        model: str,
        ids: Sequence[UUID],
        hits: Sequence[IndexHit] | None,
    ) -> _Rows:
        """Join ids to the table; index hits without a live row of their version are repaired.

        A live row of another version is a candidate all the same: its score comes from the table.
        """
        found, pending, after = await self._store.candidates(
            owner, model, ids, narrowed, self._limits.pending_rows
        )
        wrong = _wrong(hits or (), [*found, *pending])
        if wrong:
            await self._repair(owner, wrong)
        return _Rows(found, pending, after)

    async def _repair(self, owner: Owner, memory_ids: set[UUID]) -> None:
        """Queue wrong points; failing to do so must not cost the answer (reconcile finds them)."""
        try:
            await self._store.queue_repair(owner, sorted(memory_ids))
        except AppError as error:
            get_logger().warning("repair_not_queued", count=len(memory_ids), reason=error.reason)

    async def _helped(
        self,
        name: str,
        limit_s: float,
        ask: Callable[[], Awaitable[T]],
        degraded: dict[str, str],
    ) -> T | None:
        """Ask a helper within its share of the time; note in ``degraded`` that it was away."""
        share = min(limit_s, remaining_s() / 2)
        try:
            with deadline_scope(share):
                async with asyncio.timeout(share):
                    return await ask()
        except (AppError, TimeoutError) as error:
            get_logger().warning("recall_degraded", without=name, error=type(error).__name__)
            degraded[name] = why_left_out(error)
            return None

    async def _with_context(
        self, owner: Owner, ranked: Sequence[Scored], rows: dict[str, Remembered]
    ) -> list[Hit]:
        memories = [rows[scored.candidate.memory_id].memory for scored in ranked]
        texts = await self._store.texts_at(owner, _around(memories)) if memories else {}
        return [
            Hit(
                memory=memory,
                score=scored.score,
                reasons=scored.reasons,
                previous_text=_glimpse(texts, memory, -1),
                next_text=_glimpse(texts, memory, 1),
            )
            for memory, scored in zip(memories, ranked, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Rows:
    found: Sequence[Remembered]
    pending: Sequence[Remembered]
    after: Sequence[Remembered]

    def all(self) -> list[Remembered]:
        return [*self.found, *self.pending, *self.after]


def _possible_terms(question: Question) -> list[str]:
    """Return all terms the question may be searched by; names are taken out once known."""
    return list(prepare_query(question.text, ()).terms)


def _uuids(ids: Iterable[str]) -> list[UUID]:
    return [UUID(text) for text in dict.fromkeys(ids)]


def _wrong(hits: Sequence[IndexHit], rows: Sequence[Remembered]) -> set[UUID]:
    """Return the ids of hits that the table does not know in that version.

    A row that waits for the index anyway is not wrong: its job is queued, and it is scored from
    the table.
    """
    known = {row.candidate.memory_id: row for row in rows}
    wrong = set()
    for hit in hits:
        row = known.get(hit.memory_id)
        waits = row is not None and row.indexed_version != row.memory.version
        if not waits and (row is None or row.memory.version != hit.version):
            wrong.add(UUID(hit.memory_id))
    return wrong


def _ranked(
    query: Query, rows: Sequence[Remembered], stats: CorpusStats, question: Question
) -> list[Scored]:
    """Rank all rows and keep the best that the filter admits (neighbours only lend weight)."""
    weights = RecallWeights(recency=question.recency_weight, half_life=question.half_life)
    scored = rank(query, [row.candidate for row in rows], stats, weights)
    admitted = collapsed(s for s in scored if question.narrowed.admits(s.candidate))
    return [s for s, _ in zip(admitted, range(question.limit), strict=False)]


def _around(memories: Sequence[Memory]) -> list[tuple[str, int]]:
    return sorted(
        {
            (memory.conversation_id, memory.seq + step)
            for memory in memories
            if memory.conversation_id is not None and memory.seq is not None
            for step in (-1, 1)
            if memory.seq + step > 0
        }
    )


def _glimpse(texts: Mapping[tuple[str, int], str], memory: Memory, step: int) -> str:
    """The start of the turn before or after, or nothing."""
    text = texts.get((memory.conversation_id or "", (memory.seq or 0) + step), "")
    return text[:GLIMPSE_CHARS]
