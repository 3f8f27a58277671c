"""Reading conversations in LoCoMo's format: turns, sessions, questions with their evidence.

The data never lies in this repository; the benchmark gets its path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

MULTI_HOP, TEMPORAL, OPEN_DOMAIN, SINGLE_HOP, FALSE_PREMISE = 1, 2, 3, 4, 5
CATEGORIES = {
    MULTI_HOP: "multi-hop",
    TEMPORAL: "temporal",
    OPEN_DOMAIN: "open-domain",
    SINGLE_HOP: "single-hop",
    FALSE_PREMISE: "false premise",
}
ANSWERABLE = (MULTI_HOP, TEMPORAL, SINGLE_HOP)
"""Open-domain questions ask for opinions and world knowledge: neither answerable nor not."""

# The data gives a time for a session only; its turns follow each other at this pace.
_BETWEEN_TURNS = timedelta(seconds=20)
_SESSION = re.compile(r"session_(\d+)")
_TURN_ID = re.compile(r"D\d+:\d+")


@dataclass(frozen=True)
class Turn:
    """One thing said; `id` is the data's own ("D3:7")."""

    id: str
    session: int
    speaker: str
    text: str
    time: datetime


@dataclass(frozen=True)
class Question:
    """A question and the ids of the turns that hold its evidence."""

    text: str
    category: int
    evidence: frozenset[str]
    answer: str


@dataclass(frozen=True)
class Dialogue:
    """A conversation of two people over many sessions."""

    name: str
    speakers: tuple[str, str]
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]

    def sessions(self) -> dict[int, list[Turn]]:
        """The turns by session, in order."""
        found: dict[int, list[Turn]] = {}
        for turn in self.turns:
            found.setdefault(turn.session, []).append(turn)
        return found

    def named_in(self, text: str) -> list[str]:
        """The speakers that a text names, in the order in which it does."""
        places = {name: re.search(rf"\b{re.escape(name)}\b", text, re.I) for name in self.speakers}
        found = {name: place.start() for name, place in places.items() if place}
        return sorted(found, key=found.__getitem__)


def load(path: Path) -> list[Dialogue]:
    """Read a file; raises OSError, ValueError or KeyError for anything else than such data."""
    return [_dialogue(sample) for sample in json.loads(path.read_text(encoding="utf-8"))]


def _dialogue(sample: Mapping[str, Any]) -> Dialogue:
    conversation = sample["conversation"]
    turns = tuple(_turns(conversation))
    known = frozenset(turn.id for turn in turns)
    questions = (_question(entry, known) for entry in sample["qa"])
    return Dialogue(
        name=sample["sample_id"],
        speakers=(conversation["speaker_a"], conversation["speaker_b"]),
        turns=turns,
        questions=tuple(question for question in questions if question.evidence),
    )


def _turns(conversation: Mapping[str, Any]) -> Iterator[Turn]:
    numbers = (match for key in conversation if (match := _SESSION.fullmatch(key)))
    for number in sorted(int(match[1]) for match in numbers):
        started = _time(conversation[f"session_{number}_date_time"])
        for place, turn in enumerate(conversation[f"session_{number}"]):
            said_at = started + place * _BETWEEN_TURNS
            yield Turn(turn["dia_id"], number, turn["speaker"], turn["text"], said_at)


def _time(text: str) -> datetime:
    """Read "1:56 pm on 8 May, 2023"."""
    return datetime.strptime(text, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)


def _question(entry: Mapping[str, Any], known: frozenset[str]) -> Question:
    """Read a question; some evidence is malformed, and then counts as far as it names turns."""
    named = _TURN_ID.findall(" ".join(map(str, entry.get("evidence") or [])))
    answer = entry.get("answer", entry.get("adversarial_answer", ""))
    return Question(
        entry["question"], int(entry["category"]), known.intersection(named), str(answer)
    )
