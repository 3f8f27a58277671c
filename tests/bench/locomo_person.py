"""The same question in the first person: "When did Ann move?" as Ann would ask it.

Rules for English, written for questions about one or two named people. They are not perfect, and
need not be: people do not write perfectly either.
"""

from __future__ import annotations

import re

_AUXILIARIES = {
    "does": "do",
    "is": "am",
    "has": "have",
    "do": "do",
    "did": "did",
    "was": "was",
    "had": "had",
    "would": "would",
    "could": "could",
    "should": "should",
    "can": "can",
    "will": "will",
    "might": "might",
}
_OBJECT_AFTER = (
    "to|for|with|of|about|from|by|on|at|than|like|between|around|inspired?|inspires|gave?|gives?|"
    "told?|tell|helped?|helps?|makes?|made|motivated?|supports?|supported|shows?|showed|invited?|"
    "teach|taught|brings?|brought|advised?|offers?|offered|causes?|caused|joins?|joined|gift|"
    "gifted|gets?|got|asked?"
)
_FINITE_NEXT = r"(?!\s+(?:did|was|is|has|had|does|will|would|\w+ed)\b)"
_HER_OBJECT = (
    "to|for|with|in|on|at|from|when|after|before|during|and|as|about|feel|through|by|of|that"
)


def first_person(question: str, asker: str, listener: str) -> str:
    """Return `question` as `asker` would put it to `listener`; unchanged if it names neither."""
    mine = _spoken_of(question, asker, "I", "me", "my", be="am")
    theirs = _spoken_of(mine, listener, "you", "you", "your", be="are")
    return theirs if mine == question else _pronouns(theirs)


def _spoken_of(
    text: str, name: str, subject: str, object_: str, possessive: str, *, be: str
) -> str:
    """Replace a name by pronouns, and its verb by one that agrees."""
    who = re.escape(name)

    def inverted(match: re.Match[str]) -> str:
        verb = _agreeing(match[1].lower(), be)
        return f"{verb.capitalize() if match[1][0].isupper() else verb} {subject}"

    text = re.sub(rf"\b{who}(?:['\u2019]s\b|['\u2019](?!\w))", possessive, text)
    text = re.sub(rf"\b({'|'.join(_AUXILIARIES)})\s+{who}\b", inverted, text, flags=re.I)
    text = re.sub(rf"\b{who}\s+is\b", f"{subject} {be}", text)
    text = re.sub(rf"\b{who}\s+has\b", f"{subject} have", text)
    text = re.sub(rf"\b({_OBJECT_AFTER})\s+{who}\b{_FINITE_NEXT}", rf"\1 {object_}", text)
    return re.sub(rf"\b{who}\b", subject, text)


def _agreeing(verb: str, be: str) -> str:
    if verb in ("is", "was"):
        return {"is": be, "was": "was" if be == "am" else "were"}[verb]
    return _AUXILIARIES[verb]


def _pronouns(text: str) -> str:
    """The asker is meant by "she" and "his" as well: the questions name nobody else."""
    text = re.sub(r"\b(?:she|he) is\b", "I am", text)
    text = re.sub(r"\b(?:she|he) has\b", "I have", text)
    text = re.sub(r"\b(?:does|did) (?:she|he)\b", lambda m: _inverted_pronoun(m[0]), text)
    text = re.sub(r"\b(?:she|he)\b", "I", text)
    text = re.sub(rf"\bhis\b|\bher(?=\s+(?!(?:{_HER_OBJECT})\b)\w)", "my", text)
    text = re.sub(r"\b(?:him|her)\b", "me", text)
    return re.sub(r"\b(?:herself|himself)\b", "myself", text)


def _inverted_pronoun(text: str) -> str:
    return f"{_AUXILIARIES[text.split()[0]]} I"
