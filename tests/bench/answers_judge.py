"""Whether a reply to a question about the sample conversation is right. Pure.

By what it says: words it must have one of, words it must not have, a date in any usual form; or,
for what was never said, that it says so. Coarse, alike for every kind of answer, and repeatable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MONTHS = "January February March April May June July August September October November December"
_ORDINALS = {1: "first", 8: "eighth", 12: "twelfth", 14: "fourteenth", 21: "twenty-first"}
_ORDINALS |= {25: "twenty-fifth"}
_UNKNOWN = re.compile(
    r"\b(?:don't|doesn't|didn't|haven't|can't|cannot|no|never|not)\b"
    r"[^.?!]{0,40}\b(?:know|sure|say|said|mention(?:ed)?|tell|told|information|record|remember|"
    r"recall|find|memory|aware)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Asked:
    """A question of the bench.

    `says` are words of which one must be there, before any of `never`; `date` is month-day;
    `words` the least number of words.
    """

    kind: str
    text: str
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    date: str = ""
    unknown: bool = False
    words: int = 1


def is_right(asked: Asked, reply: str, *, quotes: bool) -> bool:
    """Return whether a reply is right; `quotes` says that it is a quotation of a memory.

    Where nothing is to be remembered (small talk, knowledge, writing) a quotation is no reply.
    """
    known = not _UNKNOWN.search(reply)
    if asked.unknown:
        return not known
    if asked.date:
        return names_date(reply, asked.date)
    if _about_the_past(asked):
        return _says(asked, reply)
    return known and not quotes and len(reply.split()) >= asked.words and _says(asked, reply)


def _about_the_past(asked: Asked) -> bool:
    return asked.kind in ("fact", "changed fact")


def _says(asked: Asked, reply: str) -> bool:
    """Whether one of the words is there, and before any that would be wrong."""
    text = reply.casefold()
    right = _first(text, asked.says) if asked.says else 0
    return right < len(text) and right <= _first(text, asked.never)


def _first(text: str, words: tuple[str, ...]) -> int:
    """Where the first of the words stands; the text's length if none does."""
    found = (text.find(word.casefold()) for word in words)
    return min((place for place in found if place >= 0), default=len(text))


def names_date(reply: str, date: str) -> bool:
    """Return whether a text names a day, such as "03-21", in one of the usual forms."""
    month, day = (int(part) for part in date.split("-"))
    name = _MONTHS.split()[month - 1]
    number = rf"(?:0?{day}(?:st|nd|rd|th)?|{_ORDINALS.get(day, day)})"
    forms = rf"\b{number} (?:of )?{name}\b|\b{name} (?:the )?{number}\b|\b\d{{4}}-{date}\b"
    return bool(re.search(forms, reply, re.IGNORECASE))
