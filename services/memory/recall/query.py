"""From a question to what is searched: names out of the text, and whom it is about.

A speaker's name in the dense query costs 2.2 points of recall@10 (every turn of that speaker
looks alike), so names are removed from what is embedded and from the keywords, and count as the
speaker boost instead. In a chat the asker is a speaker too: "I" and "my" mean the user, "you" and
"your" the companion.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from services.memory.recall.text import terms, words
from services.memory.recall.types import Asked, Query

_USER_WORDS = frozenset(("i", "me", "my", "mine", "myself"))
_COMPANION_WORDS = frozenset(("you", "your", "yours", "yourself"))
_GENERIC_NAMES = frozenset(("user", "assistant"))
_ADDRESS = re.compile(
    r"""^\W*(?:(?:hey|hi|hello|ok|okay|so|please)\b[\s,]*)*
    (?:(?:do|can|could|would|will)\s+you\s+(?:please\s+|still\s+|happen\s+to\s+)*
       (?:remember|recall|know|remind|tell|say|find|look\s+up)
      |(?:what|how\s+much)\s+do\s+you\s+(?:remember|know|recall)
      |(?:please\s+)?(?:tell|remind)\s+me)
    (?:\s+(?:me|of|about|that|if|whether)\b)*[\s,:]*""",
    re.IGNORECASE | re.VERBOSE,
)


def prepare_query(text: str, speakers: Sequence[str], asker: str | None = None) -> Query:
    """Return ``text`` as a query without vectors: embed ``dense_text`` and put them in.

    Args:
        text: The question as asked.
        speakers: The names of everyone who speaks in the user's memories.
        asker: The asker's own name among them; ``None`` where "I" means whoever has role user.

    """
    names = [name for name in speakers if name.strip() and name.lower() not in _GENERIC_NAMES]
    name_terms = {term for name in names for term in terms(name)}
    return Query(
        text=text,
        dense_text=_without_names(text, names),
        terms=dict(Counter(term for term in terms(text) if term not in name_terms)),
        asked=_asked(text, names, asker),
    )


def _without_names(text: str, names: Sequence[str]) -> str:
    if not names:
        return text
    longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    bare = re.sub(rf"\b(?:{longest_first})\b(?:['\u2019]s)?", "", text)
    return re.sub(r"\s+", " ", bare).strip() or text


def _asked(text: str, names: Sequence[str], asker: str | None) -> Asked | None:
    """Return the one speaker whom the question is about; nobody if it is about two or none."""
    address = _ADDRESS.match(text)
    said = words(text[address.end() :] if address else text)
    found = {Asked(speaker=name) for name in names if _is_named(name, said)}
    if not _USER_WORDS.isdisjoint(said):
        found.add(Asked(speaker=asker) if asker else Asked(role="user"))
    if not _COMPANION_WORDS.isdisjoint(said):
        found.add(Asked(role="assistant"))
    return next(iter(found)) if len(found) == 1 else None


def _is_named(name: str, said: Sequence[str]) -> bool:
    parts = words(name)
    return bool(parts) and any(
        list(said[start : start + len(parts)]) == parts for start in range(len(said))
    )
