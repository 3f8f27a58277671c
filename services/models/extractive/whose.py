"""Whose thing a question is about, and whether a turn speaks of that one.

"What is my sister's name?" is not answered by the mother's, "When is my birthday?" not by "her
birthday", and "Where do I work?" not by "You should work in a shop".
"""

from __future__ import annotations

import re

from services.models.extractive.text import WordWeights, is_question, plain_quotes, sentences, words

# Each row is one relation: the words that ask for it, and further ones that may answer.
_KIN_TABLE = (
    ("mother mom mum", "mam mama mommy mummy"),
    ("father dad", "daddy papa"),
    ("parent parents", "mother mom mum father dad"),
    ("sister sisters", "sis"),
    ("brother brothers", "bro"),
    ("sibling siblings", "sister sisters brother brothers"),
    ("husband", "spouse hubby"),
    ("wife", "spouse"),
    ("partner spouse", "husband wife boyfriend girlfriend"),
    ("boyfriend", ""),
    ("girlfriend", ""),
    ("son sons", ""),
    ("daughter daughters", ""),
    ("kid kids child children", "son sons daughter daughters"),
    ("grandmother grandma granny", "nana gran"),
    ("grandfather grandpa", "granddad"),
    ("aunt", "auntie"),
    ("uncle", ""),
    ("cousin cousins", ""),
    ("nephew", ""),
    ("niece", ""),
    ("boss", "manager"),
)
_KIN = tuple(
    (frozenset(asking.split()), frozenset(f"{asking} {more}".split()))
    for asking, more in _KIN_TABLE
)

_PLAIN_WORD = re.compile(r"[a-z]+")
_MY_THING = re.compile(r"\b(?:my|our)\s+([a-z]+)", re.IGNORECASE)
_MINE = re.compile(r"\b(?:my|our)\b", re.IGNORECASE)
_ANOTHERS = re.compile(r"\b(?i:his|her|their|your)\b|\b[A-Z]\w+'s\b")
# A possessor stands at most this many words before its thing: "his eighty-second birthday".
_POSSESSOR_WORDS = 3


def other_kin(asked: str, said: str) -> float:
    """Returns the share (0..1) of the kin that `asked` speaks of and `said` does not."""
    question, answer = _plain(asked), _plain(said)
    wanted = [answering for asking, answering in _KIN if asking & question]
    return sum(not answering & answer for answering in wanted) / len(wanted) if wanted else 0.0


def others_thing(asked: str, said: str) -> bool:
    """Whether `asked` is about "my thing" and `said` has that thing only as somebody else's."""
    text = plain_quotes(said)
    return any(_is_others(match[1], text) for match in _MY_THING.finditer(plain_quotes(asked)))


def _is_others(thing: str, text: str) -> bool:
    wanted, possessors = words(thing), []
    for match in re.finditer(r"[A-Za-z]+", text):
        if wanted and words(match[0]) == wanted:
            possessors.append(" ".join(text[: match.start()].split()[-_POSSESSOR_WORDS:]))
    if any(_MINE.search(possessor) for possessor in possessors):
        return False
    return any(_ANOTHERS.search(possessor) for possessor in possessors)


def other_subject(
    asked_words: frozenset[str],
    weights: WordWeights,
    said: str,
    person: re.Pattern[str],
    others: re.Pattern[str],
) -> bool:
    """Whether the statement that has most of the question's words leaves the asked person out.

    Args:
        asked_words: the question's stemmed words.
        weights: what each of them is worth.
        said: the turn.
        person: the pronouns of the asked person in the speaker's mouth.
        others: those of the other of the two.

    """
    stated = [part for part in sentences(plain_quotes(said)) if not is_question(part)]
    shares = [(weights.share(asked_words, words(part)), part) for part in stated]
    best, part = max(shares, key=lambda pair: pair[0], default=(0.0, ""))
    return best > 0 and bool(others.search(part)) and not person.search(part)


def _plain(text: str) -> set[str]:
    return set(_PLAIN_WORD.findall(plain_quotes(text.lower())))
