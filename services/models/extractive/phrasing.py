"""Saying a quotation, its date and its doubts in plain words; never more than the memories say."""

from __future__ import annotations

import datetime as dt
import re

from services.models.extractive.calendar_spans import DaySpan, say_day
from services.models.extractive.dates import resolve
from services.models.extractive.intent import Intent
from services.models.extractive.pick import quote
from services.models.extractive.questions import QuestionType
from services.models.extractive.signals import ScoredTurn
from services.models.extractive.turns import COMPANION, USER

UNKNOWN_NOTHING_NEAR = "I don't know that: nothing I remember says so."
UNKNOWN_NO_MEMORIES = "I don't know that: I remember nothing about it."
_WHAT_I_AM = (
    "No language model is connected: I answer by quoting what was said to me before, with its date."
)
_SMALL_TALK = {
    Intent.GREETING: "Hello! Ask me about anything you told me.",
    Intent.THANKS: "You're welcome.",
    Intent.FAREWELL: "Goodbye, until next time.",
    Intent.HOW_ARE_YOU: f"I'm ready. {_WHAT_I_AM}",
    Intent.TASK: f"I can't do that. {_WHAT_I_AM}",
    Intent.STATEMENT: "Thanks for telling me.",
}
_ECHO = re.compile(
    r'(?:On \d{1,2} \w+ \d{4} (?:you told me|I told you|.{1,128} said): "|'
    r"I'm not sure; the nearest I recall |I don't know that: |I can't do that\. No language model|"
    r"Thanks for telling me\.$|You're welcome\.$|Goodbye, until next time\.$|"
    r"Hello! Ask me about anything you told me\.$|I'm ready\. No language model|"
    r".{0,140}No language model is connected: I answer by quoting)",
    re.DOTALL,
)


def is_echo(text: str) -> bool:
    """Whether a text is a reply of this responder: it repeats memories and is none itself."""
    return bool(_ECHO.match(text))


def small_talk(intent: Intent, companion_name: str) -> str:
    """Returns the answer to a message that needs no memory."""
    if intent is Intent.IDENTITY:
        return f"I'm {companion_name}. {_WHAT_I_AM}" if companion_name else _WHAT_I_AM
    return _SMALL_TALK[intent]


def teller(scored: ScoredTurn, asked: str) -> str:
    """Returns who said it to whom: by name if the question or the user goes by names."""
    name = scored.turn.speaker.strip()
    named = bool(name) and name.split()[0].casefold() in re.findall(r"\w+", asked.casefold())
    if scored.speaker == USER and not named:
        return "you told me"
    if scored.speaker == COMPANION and not named:
        return "I told you"
    return f"{name} said"


def quotation(scored: ScoredTurn, kind: QuestionType, asked: str) -> str:
    """Returns "On 8 May 2023 you told me: "..."" with the day that the quote's own words mean."""
    said = quote(scored, kind)
    lead = f"On {say_day(scored.turn.day)} {teller(scored, asked)}: {_in_marks(said)}"
    return " ".join(filter(None, (lead, _meaning(scored, kind, said))))


def also(scored: ScoredTurn, kind: QuestionType, asked: str) -> str:
    """Returns a second quotation that goes with the first."""
    return f"Also: {_lower_on(quotation(scored, kind, asked))}"


def other_time(scored: ScoredTurn, than: ScoredTurn, kind: QuestionType, asked: str) -> str:
    """Returns what was said of the same thing at another time, and which of the two is newer."""
    said = _in_marks(quote(scored, kind))
    told = f"on {say_day(scored.turn.day)} {teller(scored, asked)}: {said}"
    if scored.turn.said_at < than.turn.said_at:
        return f"That is the newer one; before, {told}"
    return f"That was before; later, {told}"


def doubtful(scored: ScoredTurn, kind: QuestionType, asked: str) -> str:
    """Returns the quotation as the nearest thing there is."""
    return f"I'm not sure; the nearest I recall is this. {quotation(scored, kind, asked)}"


def _meaning(scored: ScoredTurn, kind: QuestionType, said: str) -> str:
    """The days meant, where the quote says them relative to its own day."""
    day = scored.turn.day
    meant = resolve(said, day)
    if meant is None and kind is QuestionType.WHEN:
        meant = resolve(scored.turn.text, day)
    if meant is None:
        return "No other date was given." if kind is QuestionType.WHEN else ""
    return "" if _plainly_in(said, meant, day) else f"That means {meant.label}."


def _plainly_in(said: str, meant: DaySpan, day: dt.date) -> bool:
    """Whether the quote already says it, or means the very day that leads it."""
    if meant.first == meant.last == day:
        return True
    return meant.label.casefold() in said.casefold()


def _in_marks(said: str) -> str:
    return '"' + said.replace('"', "'") + '"'


def _lower_on(text: str) -> str:
    return text[:1].lower() + text[1:]
