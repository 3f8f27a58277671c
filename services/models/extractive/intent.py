"""What a message is, before any memory is looked at: small talk, a statement, or a question."""

from __future__ import annotations

import re
from enum import Enum

from services.models.extractive.people import core
from services.models.extractive.questions import QuestionType, question_type
from services.models.extractive.text import is_question, plain_quotes, sentences


class Intent(Enum):
    """What a message wants."""

    GREETING = "greeting"
    THANKS = "thanks"
    FAREWELL = "farewell"
    HOW_ARE_YOU = "how_are_you"
    IDENTITY = "identity"
    TASK = "task"
    STATEMENT = "statement"
    QUESTION = "question"


def _whole(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\W*(?:{pattern})\W*", re.IGNORECASE)


_HELLO = (
    r"(?:hi|hello|hey|hiya|howdy|good (?:morning|afternoon|evening|day))"
    r"(?: there| again| you| \w+)?"
)
_BYE = r"(?:bye(?:[ -]bye)?|goodbye|good ?night|see you(?: later| soon| tomorrow)?|take care|ciao)"
_THANKS = (
    r"(?:(?:ok(?:ay)?|great|perfect|cool)\W+)?(?:many thanks|thanks|thank you|thx|cheers)"
    r"(?: (?:so|very) much| a lot| again| for \w[\w ']{0,60})?"
    r"(?:\W+that(?:'s| is| was)?(?: \w+){1,3})?"
)
_HOW = r"how are you(?: doing)?(?: today)?|how(?:'s| is) it going|what'?s up"
_IDENTITY = (
    r"(?:who|what) (?:exactly )?are you|what(?:'s| is) your name|what can you do|how do you work|"
    r"are you (?:a |an )?(?:real |actual )?(?:ai|bot|robot|human|person|machine|model|"
    r"language model|large language model|llm|chatgpt|gpt|real)"
)
_TASK = re.compile(
    r"\W*(?:(?:please|can you|could you|would you) )*"
    r"(?:write|compose|draft|translate|summari[sz]e|generate|explain|calculate|compute|code|"
    r"program|debug|imagine|invent|make up|sing|draw)\b",
    re.IGNORECASE,
)
_SMALL_TALK = (
    (Intent.HOW_ARE_YOU, _whole(rf"(?:{_HELLO}\W+)?(?:{_HOW})")),
    (Intent.IDENTITY, _whole(rf"(?:{_HELLO}\W+)?(?:{_IDENTITY})")),
    (Intent.GREETING, _whole(_HELLO)),
    (Intent.THANKS, _whole(rf"{_THANKS}(?:\W+{_BYE})?")),
    (Intent.FAREWELL, _whole(rf"(?:{_THANKS}\W+)?{_BYE}")),
)
_RECALL_REQUEST = re.compile(
    r"\W*(?:please )?(?:tell|remind|show) me\b|"
    r"\W*(?:do|did|can|could) you (?:still |even |happen to )?(?:remember|recall|know)\b|"
    r"\W*(?:i forgot|i (?:can't|don't|do not) remember|i wonder) (?:wh|how|my|the|our)",
    re.IGNORECASE,
)
# "Is he ..." asks even without its mark; "Have a nice day" and "Will do" do not.
_OPENS_QUESTION = frozenset(QuestionType) - {QuestionType.WHAT, QuestionType.YES_NO}
_ASKS = re.compile(
    r"\W*(?:what|which|(?:do|does|did|is|are|was|were|have|has|can|could|should) "
    r"(?:i|you|we|he|she|it|they|my|your|the|there)\b)",
    re.IGNORECASE,
)
_POINTS_BACK = re.compile(
    r"\b(he|she|it|they|him|her|them|his|its|their|there|that)\b", re.IGNORECASE
)


def intent_of(message: str) -> Intent:
    """Returns what a message wants; anything that asks nothing is a statement."""
    text = plain_quotes(message.strip())
    for intent, pattern in _SMALL_TALK:
        if pattern.fullmatch(text):
            return intent
    if _TASK.match(text):
        return Intent.TASK
    return Intent.QUESTION if _asks(text) else Intent.STATEMENT


def _asks(text: str) -> bool:
    if is_question(text) or _RECALL_REQUEST.match(text):
        return True
    asked = core(text)
    return bool(_ASKS.match(asked)) or question_type(asked) in _OPENS_QUESTION


def question_in(message: str) -> str:
    """Returns the asking part of a message, or all of it when that points back to the rest."""
    asking = [part for part in sentences(message.strip()) if is_question(part)]
    question = " ".join(asking)
    return message.strip() if not asking or _POINTS_BACK.search(question) else question
