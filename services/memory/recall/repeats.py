"""What was said over and over: asked again, answered again, quoted again. It is no new evidence.

People ask their companion the same thing often, and each time the question and its reply are
stored. Unless they are seen through, ten such pairs fill the answer and the fact itself is gone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from services.memory.recall.neighbours import asks
from services.memory.recall.query import prepare_query
from services.memory.recall.text import MONTHS, terms, words
from services.memory.recall.types import Candidate, Query, Scored, once_each

SAME_QUESTION = 0.75
"""Jaccard share of common terms from which two questions ask the same."""

QUOTED_SHARE = 1 / 3
"""Share of a turn's terms, its dates aside, that stands in quotation marks if it only quotes."""

_SENTENCE_END = re.compile(r"(?<=[.!?\uff1f\u061f])\s+")
_OPENS_QUESTION = re.compile(
    r"^\W*(?:what|which|who|whose|whom|when|where|why|how|tell|remind)\b", re.IGNORECASE
)
_POLITE = frozenset(terms("hi hello hey ok okay please thanks"))
_QUOTED = re.compile(r'["\u201c]([^"\u201c\u201d]+)["\u201d]')
_CUT_SHORT = ("...", "\N{HORIZONTAL ELLIPSIS}")
_MONTH_TERMS = frozenset(term for month in MONTHS for term in terms(month))


def without_repeats(
    query: Query, candidates: Sequence[Candidate], speakers: Sequence[str]
) -> list[Candidate]:
    """Return the candidates that may say something which the query and the others do not.

    Left out are turns that only ask what the query asks; the companion's replies to those but the
    newest; and the companion's quotations of other candidates, for the source says it better.
    """
    same = _restatements(query, candidates, speakers)
    kept = [c for c in candidates if c.text not in same]
    if len(kept) < len(candidates):
        asked = {(c.conversation_id, c.seq) for c in candidates} - _places(kept)
        kept = list(_one_reply(kept, asked))
    return list(_without_quotations(kept))


def collapsed(scored: Iterable[Scored]) -> Iterator[Scored]:
    """Yield the first of all that say the same: the best, if they come best first.

    What the user states on another day is another event; what is asked, or said by the companion,
    stays the same whenever it is said.
    """
    seen = set()
    for one in scored:
        key = _sameness(one.candidate)
        if key not in seen:
            seen.add(key)
            yield one


def _restatements(
    query: Query, candidates: Sequence[Candidate], speakers: Sequence[str]
) -> frozenset[str]:
    """Return the texts of those candidates that only ask what the query asks."""
    wanted = query.terms.keys()
    if not wanted:
        return frozenset()
    near = {
        c.text for c in candidates if len(wanted & c.terms.keys()) >= SAME_QUESTION * len(wanted)
    }
    return frozenset(
        text for text in near if _only_asks(text) and _asks_same(text, set(wanted), speakers)
    )


def _asks_same(text: str, wanted: set[str], speakers: Sequence[str]) -> bool:
    """Whether a question asks for ``wanted``; one without its mark may tell with what it adds."""
    asked = prepare_query(text, speakers).terms.keys() - _POLITE
    wanted = wanted - _POLITE
    alike = len(asked & wanted) >= SAME_QUESTION * len(asked | wanted)
    return alike and (asks(text) or asked <= wanted)


def _only_asks(text: str) -> bool:
    parts = [part for part in _SENTENCE_END.split(text) if set(terms(part)) - _POLITE]
    return all(asks(part) or _OPENS_QUESTION.match(part) for part in parts)


def _places(candidates: Iterable[Candidate]) -> set[tuple[str | None, int | None]]:
    return {(c.conversation_id, c.seq) for c in candidates}


def _one_reply(
    candidates: Sequence[Candidate], asked: set[tuple[str | None, int | None]]
) -> Iterator[Candidate]:
    """Of the companion's replies to the turns at the places ``asked``, yield only the newest."""
    replies = [
        c
        for c in candidates
        if c.role == "assistant" and c.seq and (c.conversation_id, c.seq - 1) in asked
    ]
    newest = max(replies, key=lambda c: c.time, default=None)
    surplus = {c.memory_id for c in replies if c is not newest}
    return (c for c in candidates if c.memory_id not in surplus)


def _without_quotations(candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    quoting = {c.memory_id: said for c in candidates if (said := _only_quotes(c))}
    if not quoting:
        return iter(candidates)
    sources = "\n".join(_said(c) for c in candidates if c.memory_id not in quoting)
    # The same is quoted again and again, and looked for once.
    found = {part: part in sources for part in set(itertools.chain(*quoting.values()))}
    echoes = {who for who, said in quoting.items() if all(found[part] for part in said)}
    return (c for c in candidates if c.memory_id not in echoes)


@once_each
def _said(candidate: Candidate) -> str:
    return _plain(candidate.text)


@once_each
def _only_quotes(candidate: Candidate) -> list[str]:
    """Return the passages that a turn of the companion quotes, if it does little else."""
    if candidate.role != "assistant":
        return []
    passages = [part for part in _QUOTED.findall(candidate.text) if words(part)]
    if not passages:
        return []
    quoted = sum(len(terms(part)) for part in passages)
    own = _undated_terms(_QUOTED.sub(" ", candidate.text))
    return [_plain(part) for part in passages] if quoted >= QUOTED_SHARE * (quoted + own) else []


def _undated_terms(text: str) -> int:
    """Return how many terms a text has that are no part of a date."""
    return sum(not term.isdigit() and term not in _MONTH_TERMS for term in terms(text))


def _plain(text: str) -> str:
    """Return the words of ``text`` with a bar around each sentence, so that whole ones are found.

    A last sentence that was cut short has none behind it.
    """
    parts = (" ".join(words(part)) for part in _SENTENCE_END.split(text))
    said = "|".join(part for part in parts if part)
    return f"|{said}" if text.rstrip().endswith(_CUT_SHORT) else f"|{said}|"


@once_each
def _sameness(candidate: Candidate) -> tuple[object, ...]:
    said = " ".join(words(candidate.text)) or candidate.text.strip()
    event = candidate.role == "user" and not asks(candidate.text)
    day = candidate.time.date() if event else None
    return candidate.kind, candidate.role, candidate.speaker.lower(), said, day
