"""Whose thing a question is about, and whether a turn speaks of that one.

"What is my sister's name?" is not answered by the mother's, "When is my birthday?" not by "her
birthday", "Where do I work?" not by "You should work in a shop", and "How old am I?" not by "My
cat is three years old".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

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
_POSSESSIVE = re.compile(r"\b(?:my|our|mine|ours|your|yours)\b|'s\b", re.IGNORECASE)
_SELF = re.compile(r"\b(?:i|me|we|us|myself|ourselves)\b", re.IGNORECASE)
# "How old am I": a measure of the speaker, who must stand beside it.
_HOW_AM_I = re.compile(r"\bhow \w+ (?:am|was) i\b", re.IGNORECASE)
_SELF_OR_MINE = re.compile(rf"{_SELF.pattern}|{_MINE.pattern}", re.IGNORECASE)
# "My cat is ...", "Our old neighbour works ...", "She's ...": another and what that one is or does.
_ANOTHER_DOES = re.compile(
    r"\W*(?:(?:and|but|so|well|oh|yes|yeah|also|now)\b\W*)*(?:she|he|they|(?:my|our)\s+((?:\w+\s+){0,2}?\w+?))"
    r"(?:'s|'re|\s+(?:is|are|was|were|has|have|had|\w+s|\w+ed))\b",
    re.IGNORECASE,
)
# "What is my blood type": a thing in several words, of which the last says what it is.
_WHAT_IS_THE_THING = re.compile(
    r"\W*(?:what(?:'s)?|which)(?:\s+(?:is|are|was|were))?\s+(?:my|our|your|his|her|their|\w+'s)\s+"
    r"([\w\s-]+?)\s*(?:now|again|currently|these days)?\W*",
    re.IGNORECASE,
)
# A possessor stands at most this many words before its thing: "his eighty-second birthday".
_POSSESSOR_WORDS = 3


def other_kin(asked: str, said: str) -> float:
    """Returns the share (0..1) of the kin that `asked` speaks of and `said` does not."""
    question, answer = _plain(asked), _plain(said)
    wanted = [answering for asking, answering in _KIN if asking & question]
    return sum(not answering & answer for answering in wanted) / len(wanted) if wanted else 0.0


def others_thing(asked: str, said: str) -> bool:
    """Whether `asked` is about "my thing" and `said` has that thing only as somebody else's."""
    things = {name for match in _MY_THING.finditer(plain_quotes(asked)) for name in words(match[1])}
    if not things:
        return False
    before = _words_before(things, plain_quotes(said).split())
    return any(_is_others(possessors) for possessors in before.values())


def _words_before(things: set[str], tokens: Sequence[str]) -> dict[str, list[str]]:
    """For each of the things that is said: the few words that stand before it, each time."""
    before: dict[str, list[str]] = {}
    for place, token in enumerate(tokens):
        for name in things.intersection(words(token)):
            possessor = " ".join(tokens[max(0, place - _POSSESSOR_WORDS) : place])
            before.setdefault(name, []).append(possessor)
    return before


def _is_others(possessors: Sequence[str]) -> bool:
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
    best, part = _most_to_the_point(asked_words, weights, said)
    return best > 0 and bool(others.search(part)) and not person.search(part)


def another_instead(
    asked: str, asked_words: frozenset[str], weights: WordWeights, said: str
) -> bool:
    """Whether `asked` is about the speaker, and `said` answers for somebody or something else.

    "How old am I?" is not answered by "My cat is three years old"; "Where do I work?" is by "My
    work is in Leeds", for the question names that thing.

    Args:
        asked: the question; one with a possessive asks for a thing itself.
        asked_words: its stemmed words.
        weights: what each of them is worth.
        said: the turn, of the speaker that the question is about.

    """
    if _POSSESSIVE.search(plain_quotes(asked)):
        return False
    best, part = _most_to_the_point(asked_words, weights, said)
    if not best or _SELF.search(part):
        return False
    if _HOW_AM_I.search(asked) and not _SELF_OR_MINE.search(part):
        return True
    another = _ANOTHER_DOES.match(part)
    return another is not None and asked_words.isdisjoint(words(another[1] or ""))


def other_thing_named(asked: str, said: str) -> bool:
    """Whether `asked` is about a thing named in several words, and `said` lacks the last of them.

    "What is my blood type?" is hardly answered by "I had a blood test".
    """
    thing = _WHAT_IS_THE_THING.fullmatch(plain_quotes(asked))
    name = words(thing[1]) if thing else []
    return len(name) > 1 and name[-1] not in words(said)


def _most_to_the_point(
    asked_words: frozenset[str], weights: WordWeights, said: str
) -> tuple[float, str]:
    """The share of the question's words in the statement that has most of them, and that."""
    stated = [part for part in sentences(plain_quotes(said)) if not is_question(part)]
    shares = [(weights.share(asked_words, words(part)), part) for part in stated]
    return max(shares, key=lambda pair: pair[0], default=(0.0, ""))


def _plain(text: str) -> set[str]:
    return set(_PLAIN_WORD.findall(plain_quotes(text.lower())))
