"""The value types of recall: what comes in, what is weighed, what goes out.

Everything here is plain data. Vectors travel as little-endian ``bytes`` exactly as Postgres keeps
them, and become arrays only inside the scoring functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import wraps
from typing import Literal, TypeVar

T = TypeVar("T")

Role = Literal["user", "assistant"]
Kind = Literal["episodic", "fact", "preference", "summary"]

TOKEN_DIMENSIONS = 64
"""Dimensions of a token vector: 2 KB for a turn of thirty tokens, as good as the full 384."""

KEPT_PER_CHAR = 3
"""Bytes that are kept with a candidate for each character of its text, about."""

DAYS_30 = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class SparseVector:
    """A sparse vector: term ids (unsigned 32-bit, ascending, unique) and their values."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Candidate:
    """One live memory that may answer the query.

    Without slots: what :func:`once_each` makes of one is kept with it.

    Attributes:
        memory_id: The memory's uuid as text.
        conversation_id: The conversation it was said in; ``None`` for a note that stands alone.
        seq: Its number in that conversation; neighbours differ by one. ``None`` for a note.
        speaker: The name of who said it; empty when unknown.
        role: ``user`` or ``assistant``.
        text: The text as stored.
        time: When it was said, with a time zone.
        vector: fp16 little-endian unit vector, or ``None`` while it is not embedded yet.
        terms: Term counts of the dated text, from :func:`..text.document_terms`.
        metadata: The caller's own string pairs.
        kind: What sort of memory it is.
        version: The row's version, from 1.
        token_vectors: int8 rows of ``TOKEN_DIMENSIONS`` for MaxSim, or ``None``.

    """

    memory_id: str
    conversation_id: str | None
    seq: int | None
    speaker: str
    role: Role
    text: str
    time: datetime
    vector: bytes | None
    terms: Mapping[str, int]
    metadata: Mapping[str, str] = field(default_factory=dict)
    kind: Kind = "episodic"
    version: int = 1
    token_vectors: bytes | None = None


def once_each(make: Callable[[Candidate], T]) -> Callable[[Candidate], T]:
    """Let ``make`` work once for each candidate: most are candidates of the next question too.

    What it makes lives as long as the candidate, and counts as :data:`KEPT_PER_CHAR` says.
    """
    name = f"{make.__module__}.{make.__qualname__}"

    @wraps(make)
    def made_before(candidate: Candidate) -> T:
        kept = candidate.__dict__
        if name not in kept:
            kept[name] = make(candidate)
        return kept[name]  # type: ignore[no-any-return]

    return made_before


@dataclass(frozen=True, slots=True)
class CorpusStats:
    """What ranking must know of the whole corpus of one user.

    Attributes:
        documents: Number of live memories of the user (N).
        document_frequency: How many of them hold each of the query's terms; absent means 0.
        speakers: Names of everyone who speaks in the corpus.

    """

    documents: int
    document_frequency: Mapping[str, int]
    speakers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """Who the query is about, when it is about exactly one speaker.

    A name is matched with a turn's speaker without regard to case; a role is matched with the
    turn's role ("I" and "my" mean the user, "you" and "your" the companion).
    """

    speaker: str | None = None
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A query ready for search and ranking. Build it with :func:`..query.prepare_query`.

    Attributes:
        text: The query as asked.
        dense_text: The text to embed: speakers' names removed.
        terms: Term counts for keyword recall: stop words and speakers' names removed.
        asked: The one speaker it is about, or ``None``.
        vector: Unit vector of ``dense_text`` (any float sequence), or ``None`` for keyword recall.
        token_vectors: int8 rows of ``TOKEN_DIMENSIONS`` of ``dense_text``, for MaxSim, or ``None``.
        now: The moment from which recency is counted; needed only when recency has weight.
        several: Whether it asks for several things ("Which books ..."), so that what answers it
            was said on several occasions.

    """

    text: str
    dense_text: str
    terms: Mapping[str, int]
    asked: Asked | None = None
    vector: Sequence[float] | None = None
    token_vectors: bytes | None = None
    now: datetime | None = None
    several: bool = False


@dataclass(frozen=True, slots=True)
class RecallWeights:
    """All parameters of ranking, with the values measured in the recall recipe.

    Each sits on a plateau: floor .4-.6, speaker .1-.3, session .3-.6, previous .35-.55 and
    question .05-.15 all lie within 0.6 points of recall@10 of each other.

    Attributes:
        floor: Quantile of the candidates' cosines that counts as "no likeness at all".
        speaker: Added to the turns of the one speaker the query is about.
        after_question: Share of the previous turn's score when that turn asks something.
        previous: Share of the previous turn's score otherwise.
        next: Share of the next turn's score.
        session: Share of the best score nearby in the same conversation.
        window: What "nearby" means, in turns to each side.
        question: Taken from a turn that itself asks something.
        recency: How much age counts: 0 leaves it out, at 1 a score halves with every half-life.
        half_life: The age at which the share that ages has halved; above zero.
        several_speaker: What ``speaker`` is multiplied by for a query that asks for several
            things: whose they are tells more than where they were talked about.
        several_session: The same for ``session``: their turns stand far apart. Together worth
            2.8 points of recall@10 on questions of several hops, and 0.1 overall.

    """

    floor: float = 0.5
    speaker: float = 0.2
    after_question: float = 0.45
    previous: float = 0.10
    next: float = 0.10
    session: float = 0.40
    window: int = 8
    question: float = 0.10
    recency: float = 0.0
    half_life: timedelta = DAYS_30
    several_speaker: float = 2.0
    several_session: float = 0.5

    def of(self, query: Query) -> RecallWeights:
        """Return the weights for this kind of query."""
        if not query.several:
            return self
        return replace(
            self,
            speaker=self.speaker * self.several_speaker,
            session=self.session * self.several_session,
        )


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why a memory ranks where it does.

    ``keyword``, ``dense`` and ``max_sim`` are shares (0..1) of the best candidate's score;
    ``dense`` and ``max_sim`` are ``None`` where the signal could not be had for this memory.

    Attributes:
        keyword: Share of the best BM25 score.
        dense: Cosine above the candidates' floor, as a share of the best.
        max_sim: Late interaction, likewise.
        speaker: What was added because the query is about this speaker.
        fused: The fused score, best = 1, before neighbours and age.
        neighbours: What the turns around it added, less the penalty for being a question.
        recency: What age left of the score; 1 where age does not count.
        bm25: The raw BM25 score.
        cosine: The raw cosine with the query; comparable between queries.

    """

    keyword: float
    dense: float | None
    max_sim: float | None
    speaker: float
    fused: float
    neighbours: float
    recency: float
    bm25: float
    cosine: float | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A ranked memory: the candidate, its final score (best first) and the reasons for it."""

    candidate: Candidate
    score: float
    reasons: Reasons
