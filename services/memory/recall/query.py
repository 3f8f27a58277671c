"""From a question to what is searched: names out of the text, and whom it is about.

A speaker's name in the dense query costs 2.2 points of recall@10 (every turn of that speaker
looks alike), so names are removed from what is embedded and from the keywords, and count as the
speaker boost instead. In a chat the asker is a speaker too: "I" and "my" mean the user, "you" and
"your" the companion.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from services.memory.recall.text import STOP_WORDS, terms, words
from services.memory.recall.types import Asked, Query

MIN_ALIAS_CHARS = 3
"""A first name shorter than this is too likely to be something else."""

_USER_WORDS = frozenset(("i", "me", "my", "mine", "myself"))
_COMPANION_WORDS = frozenset(("you", "your", "yours", "yourself"))
_GENERIC_NAMES = frozenset(("user", "assistant"))

_GREETING = r"(?i:(?:hey|hi|hello|ok|okay|so|please)\b[\s,]*)*"
_ADDRESS = re.compile(
    rf"""^\W*{_GREETING}
    (?:(?:do|can|could|would|will)\s+you\s+(?:please\s+|still\s+|happen\s+to\s+)*
       (?:remember|recall|know|remind|tell|say|find|look\s+up)
      |(?:what|how\s+much)\s+do\s+you\s+(?:remember|know|recall)
      |(?:please\s+)?(?:tell|remind)\s+me)
    (?:\s+(?:me|of|about|that|if|whether)\b)*[\s,:]*""",
    re.IGNORECASE | re.VERBOSE,
)
_SEVERAL = re.compile(
    r"""^\W*(?:what|which)\s+(?:\w+\s+){0,3}?(?!(?:was|has|does|always)\b)\w+[^\Wsui]s\b
    |\b(?:activities|events|ways|kinds|types|things)\b
    |^\W*how\s+many\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""Asks for several things: a plural after "what" or "which", "how many", "things" and its like.

Words in "ss", "us" and "is" are no plurals; a speaker's name ("James") must be out already.
"""
_USER_TO_COMPANION = re.compile(r"\b(I(?:\s+\w+){1,3}?)\s+you\b", re.IGNORECASE)
_COMPANION_TO_USER = re.compile(r"\b(you(?:\s+\w+){1,3}?)\s+me\b", re.IGNORECASE)


def prepare_query(text: str, speakers: Sequence[str], asker: str | None = None) -> Query:
    """Return ``text`` as a query without vectors: embed ``dense_text`` and put them in.

    Args:
        text: The question as asked.
        speakers: The names of everyone who speaks in the user's memories.
        asker: The asker's own name among them; ``None`` where "I" means whoever has role user.

    """
    names = _aliases([name for name in speakers if name.strip()])
    # Over a long run of white space, the patterns would take time with its square for each name.
    question = _without_address(re.sub(r"\s+", " ", text), names)
    unnamed = _without_names(question, names)
    name_terms = {term for alias in names for term in terms(alias)}
    said = terms(question)
    return Query(
        text=text,
        dense_text=unnamed,
        terms=dict(Counter([term for term in said if term not in name_terms] or said)),
        asked=_asked(question, names, asker),
        several=bool(_SEVERAL.search(unnamed)),
    )


def _aliases(names: Sequence[str]) -> dict[str, str]:
    """Return what each speaker may be called: the name, and its first word if nobody shares it."""
    known = {name: name for name in names if name.lower() not in _GENERIC_NAMES}
    firsts = Counter(name.split()[0] for name in known)
    for name in list(known):
        first = name.split()[0]
        if firsts[first] == 1 and len(first) >= MIN_ALIAS_CHARS and not _is_common(first):
            known.setdefault(first, name)
    return known


def _without_names(text: str, names: Mapping[str, str]) -> str:
    if not names:
        return text
    longest_first = "|".join(map(_pattern, sorted(names, key=len, reverse=True)))
    bare = re.sub(rf"(?<!\w)(?:{longest_first})(?!\w)(?:['\u2019]s\b)?", "", text)
    return re.sub(r"\s+", " ", bare).strip() if words(bare) else text


def _asked(question: str, names: Mapping[str, str], asker: str | None) -> Asked | None:
    """Return the one speaker whom the question is about; nobody if it is about two or none."""
    question = _COMPANION_TO_USER.sub(r"\1", _USER_TO_COMPANION.sub(r"\1", question))
    found = {
        Asked(speaker=name)
        for alias, name in names.items()
        if re.search(rf"(?<!\w){_pattern(alias)}(?!\w)", question)
    }
    said = words(question)
    if not _USER_WORDS.isdisjoint(said):
        found.add(Asked(speaker=asker) if asker else Asked(role="user"))
    if not _COMPANION_WORDS.isdisjoint(said):
        found.add(Asked(role="assistant"))
    return next(iter(found)) if len(found) == 1 else None


def _without_address(text: str, names: Mapping[str, str]) -> str:
    """Take off what only addresses the companion: "Echo, do you remember ...", "tell me ..."."""
    question = text
    for alias in names:
        question = re.sub(rf"^\W*{_GREETING}{_pattern(alias)}\s*[,!:]\s*", "", question)
        question = re.sub(rf"\s*,\s*{_pattern(alias)}\s*[?.!]*$", "", question)
    address = _ADDRESS.match(question)
    question = question[address.end() :] if address else question
    return question if words(question) else text


def _pattern(name: str) -> str:
    """Match a name in any case, but one that is also a common word ("Will", "May") only as is."""
    return re.escape(name) if _is_common(name) else f"(?i:{re.escape(name)})"


def _is_common(name: str) -> bool:
    return name.lower() in STOP_WORDS
