"""Importing a conversation as one user's history, and its questions as that user would ask them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from echomesh import Client, NewMessage
from tests.bench.locomo_data import Dialogue, Question
from tests.bench.locomo_person import first_person

# The turn's own id travels with it, so that ids the mesh made can be told apart by them.
_TURN = "turn"
_INDEXED_WITHIN_S = 300.0


@dataclass(frozen=True)
class Corpus:
    """A dialogue in the mesh: `user` is the speaker who talks with the companion.

    `turn_of` gives the data's turn id of each memory that the mesh made.
    """

    client: Client
    dialogue: Dialogue
    user: str
    turn_of: Mapping[str, str]

    @property
    def companion(self) -> str:
        """The other speaker."""
        return next(name for name in self.dialogue.speakers if name != self.user)


@dataclass(frozen=True)
class Asked:
    """A question as it is put; `asker` is empty where it speaks of everybody by name."""

    question: Question
    text: str
    asker: str = ""


async def imported(app: Client, dialogue: Dialogue, user: str) -> Corpus:
    """Import a dialogue as the history of `user`, wait until it is indexed."""
    client = app.as_user(f"{dialogue.name}-{user}")
    for number, turns in dialogue.sessions().items():
        messages = [
            NewMessage(
                "user" if turn.speaker == user else "assistant",
                turn.text or "-",
                turn.speaker,
                turn.time,
                {_TURN: turn.id},
                request_id=f"{dialogue.name}-{turn.id}",
            )
            for turn in turns
        ]
        await client.import_messages(f"session-{number}", messages)
    await _indexed(client)
    turn_of = {memory.id: memory.metadata[_TURN] async for memory in client.memories()}
    return Corpus(client, dialogue, user, turn_of)


async def _indexed(client: Client) -> None:
    ends = time.monotonic() + _INDEXED_WITHIN_S
    while (await client.index_status())[1]:
        if time.monotonic() > ends:
            raise TimeoutError(f"not indexed within {_INDEXED_WITHIN_S:.0f} s")
        await asyncio.sleep(0.2)


def questions_of(corpus: Corpus, person: str) -> Iterator[Asked]:
    """The dialogue's questions; in the first person only those that this user would ask.

    That is whoever a question names first, or the first speaker where it names nobody.
    """
    for question in corpus.dialogue.questions:
        if person == "third":
            yield Asked(question, question.text)
        elif _asker(corpus.dialogue, question) == corpus.user:
            yield as_user(corpus, question)


def as_user(corpus: Corpus, question: Question) -> Asked:
    """The question in the first person of the corpus' user."""
    text = first_person(question.text, corpus.user, corpus.companion)
    return Asked(question, text, corpus.user)


def _asker(dialogue: Dialogue, question: Question) -> str:
    return (dialogue.named_in(question.text) or list(dialogue.speakers))[0]
