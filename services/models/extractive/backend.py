"""The extractive responder behind the contract of all backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from services.models.domain import (
    Event,
    Finish,
    FinishReason,
    Generation,
    ModelCard,
    Role,
    State,
    Text,
    Usage,
    estimated_tokens,
)
from services.models.embedder import TokenEmbedder
from services.models.extractive.responder import prepare, respond
from services.models.extractive.signals import embedded_question
from services.models.extractive.turns import Query
from services.runtime.limits import Gate

MODEL = "extractive"

# More of recall's hits add noise, and vectors to compute; fewer spoil the comparison of speakers.
_MAX_TURNS = 24
# Beyond this nobody asks, and every byte costs time.
_MAX_QUESTION_CHARS = 4_096


class ExtractiveBackend:
    """Answers by quoting recalled turns; always ready.

    Args:
        embedder: for token vectors; without them the words alone decide, more carefully.
        gate: bounds how many replies are made at once.

    """

    def __init__(self, embedder: TokenEmbedder, gate: Gate) -> None:
        self._embedder = embedder
        self._gate = gate

    def models(self) -> Sequence[ModelCard]:
        """Returns the one model there is."""
        gate = self._gate
        return [
            ModelCard(
                MODEL,
                MODEL,
                State.READY,
                generative=False,
                running=gate.running,
                waiting=gate.waiting,
            )
        ]

    async def generate(self, request: Generation, card: ModelCard) -> AsyncGenerator[Event, None]:
        """See `Backend.generate`."""
        async with self._gate:
            query = await self._with_vectors(_query(request))
            # Long texts take tens of milliseconds: the loop answers others meanwhile.
            reply = await asyncio.to_thread(respond, query)
        yield Text(reply.text)
        usage = Usage(_prompt_tokens(request), estimated_tokens(reply.text))
        yield Finish(FinishReason.STOP, usage, card.id, reply.quoted_ids, reply.confidence)

    async def _with_vectors(self, query: Query) -> Query:
        prepared = prepare(query)
        if prepared is None or not prepared.turns:
            return query
        texts = [embedded_question(prepared), *(turn.text for turn in prepared.turns)]
        return replace(prepared, grids=await self._embedder.grids(texts))


def _query(request: Generation) -> Query:
    asked = [message.content for message in request.messages if message.role is Role.USER]
    best = sorted(request.evidence, key=lambda turn: -turn.score)[:_MAX_TURNS]
    return Query(
        text=" ".join(asked[-1].split())[:_MAX_QUESTION_CHARS] if asked else "",
        turns=best,
        user_name=request.user_name,
        companion_name=request.assistant_name,
    )


def _prompt_tokens(request: Generation) -> int:
    return sum(estimated_tokens(message.content) for message in request.messages)
