"""What kind of message it is and which tier it deserves, from its words alone; no model call.

Rules are tried in order, most telling first; the first that fits wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from services.routing.domain import QueryType, Tier

# A longer message is never mere small talk.
SMALL_TALK_MAX_WORDS = 8

_TIERS = {
    QueryType.SMALL_TALK: Tier.INSTANT,
    QueryType.STATEMENT: Tier.INSTANT,
    QueryType.RECALL: Tier.FAST,
    QueryType.KNOWLEDGE: Tier.FAST,
    QueryType.REASONING: Tier.STANDARD,
    QueryType.CODE: Tier.STANDARD,
    QueryType.CREATIVE: Tier.STANDARD,
}

_WORD = re.compile(r"[\w']+")
_CODE = re.compile(
    r"```|\b(?:def|class|import|function|const|let|var|return|select|printf?)\b[^.?!]*[(){};=*]"
    r"|\b(?:python|javascript|typescript|rust|java|sql|regex|bash|c\+\+|golang|html|css)\b"
    r"|\b(?:stack ?trace|traceback|segfault|null pointer|compile error|unit test)\b"
    r"|\b(?:refactor|debug|implement)\b[^.?!]*\b(?:code|function|class|method|script|program|api)\b",
    re.IGNORECASE,
)
_CREATIVE = re.compile(
    r"\b(?:write|compose|make up|invent|draft|tell)\b[^.?!]*\b(?:poem|haiku|story|song|lyrics|"
    r"limerick|toast|speech|joke|tale|letter|verse|essay|slogan)\b"
    r"|\b(?:brainstorm|imagine)\b",
    re.IGNORECASE,
)
_REASONING = re.compile(
    r"\b(?:why (?:do|does|did|is|are|would|should)|compare|pros and cons|trade-?offs?|step by step|"
    r"explain|prove|calculate|plan|figure out|should i|what would happen|how (?:can|could|should|"
    r"would|do) (?:i|we|you)|analy[sz]e|difference between|help me (?:decide|choose|think))\b"
    r"|\d\s*[-+*/^]\s*\d",
    re.IGNORECASE,
)
_QUESTION_START = re.compile(
    r"^\W*(?:(?:and|so|but|ok|okay|hey|hi|echo|well|um|by the way|btw|please)\W+)*"
    r"(?:who|whom|whose|what|what's|when|where|which|why|how|is|are|was|were|am|do|does|did|can|"
    r"could|will|would|should|has|have|had|may|might|remind me|tell me|do you)\b",
    re.IGNORECASE,
)
_PERSONAL = re.compile(
    r"\b(?:i|i'm|i've|i'd|my|mine|me|myself|we|our|ours|us|you|your|yours)\b", re.IGNORECASE
)
_REMEMBER = re.compile(
    r"\b(?:remember|remind me|recall|did i (?:say|tell|mention)|have i (?:told|said|mentioned)|"
    r"i (?:told|said|mentioned)|last time|the other day|earlier|before)\b",
    re.IGNORECASE,
)
_SMALL_TALK = re.compile(
    r"^\W*(?:hi+|hello|hey+|yo|good (?:morning|afternoon|evening|night)|morning|evening|thanks?|"
    r"thank you|thx|cheers|ok(?:ay)?|great|cool|nice|bye|goodbye|see you|later|how are you|"
    r"how's it going|what's up|sup|lol|haha+|yes|no|yep|nope|sure|welcome back|sounds good)\b",
    re.IGNORECASE,
)
_THIRD_PERSON_PAST = re.compile(
    r"\b(?:when|where|what|who|which|how (?:many|much|long|often))\b[^?]*"
    r"\b(?:did|was|were|does|has|had)\b[^?]*\?",
    re.IGNORECASE,
)


def _is_question(text: str) -> bool:
    return text.rstrip().endswith("?") or bool(_QUESTION_START.search(text))


def _is_small_talk(text: str) -> bool:
    short = len(_WORD.findall(text)) <= SMALL_TALK_MAX_WORDS
    return short and bool(_SMALL_TALK.search(text)) and not _REMEMBER.search(text)


def _is_recall(text: str) -> bool:
    if not _is_question(text):
        return False
    return bool(_REMEMBER.search(text) or _PERSONAL.search(text) or _names_someone(text))


def _names_someone(text: str) -> bool:
    """Return whether a question about the past names a person: "When did Leo move?"."""
    inner = text.strip().split()[1:]
    return bool(_THIRD_PERSON_PAST.search(text)) and any(word[:1].isupper() for word in inner)


_RULES: tuple[tuple[QueryType, Callable[[str], bool]], ...] = (
    (QueryType.CODE, lambda text: bool(_CODE.search(text))),
    (QueryType.CREATIVE, lambda text: bool(_CREATIVE.search(text))),
    (QueryType.SMALL_TALK, _is_small_talk),
    (QueryType.REASONING, lambda text: _is_question(text) and bool(_REASONING.search(text))),
    (QueryType.RECALL, _is_recall),
    (QueryType.KNOWLEDGE, _is_question),
)


def classify(text: str) -> QueryType:
    """Return the query type of a message; what is no question and no request is a statement."""
    for query_type, fits in _RULES:
        if fits(text):
            return query_type
    return QueryType.STATEMENT


def default_tier(query_type: QueryType) -> Tier:
    """Return the tier of a query type when the client names none."""
    return _TIERS.get(query_type, Tier.STANDARD)


def recalls_by_keyword(query_type: QueryType) -> bool:
    """Return whether recall should spare the embeddings: small talk needs no meaning search."""
    return query_type is QueryType.SMALL_TALK
