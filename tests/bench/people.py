"""The people of a benchmark: users with memories, and what they say."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from echomesh import Client, EchomeshError, Final, NewMessage, Text
from tests.bench.report import progress
from tests.support.mesh import RunningMesh

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_AT_ONCE = 8
_POLL_S = 0.5
# The responder's and the index's first calls load what later ones find loaded.
WARM_UP = 5


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (_EXAMPLES / name).read_text().splitlines()]


def sample_history(count: int, offset: int = 0) -> list[NewMessage]:
    """`count` messages of the sample, from `offset` on, over and over, each made distinct."""
    lines = _lines("history.jsonl")
    chosen = itertools.islice(itertools.cycle(lines), offset, offset + count)
    return [
        NewMessage(
            line["role"],
            line["text"] if index < len(lines) else f"{line['text']} ({index // len(lines)})",
            speaker=line["speaker"],
            time=datetime.fromisoformat(line["time"]),
        )
        for index, line in enumerate(chosen)
    ]


def sample_mix() -> list[str]:
    """The sample mix: its questions and its user's own sentences, one of each in turn."""
    questions = [line["text"] for line in _lines("questions.jsonl")]
    told = [line["text"] for line in _lines("history.jsonl") if line["role"] == "user"]
    pairs = zip(itertools.cycle(questions), told, strict=False)
    return [text for pair in pairs for text in pair]


@dataclass(frozen=True)
class Heard:
    """One chat as its person saw it, in seconds from sending; `error` is empty if it was well."""

    sent_at: float
    first_frame_s: float = 0.0
    first_text_s: float = 0.0
    total_s: float = 0.0
    degraded: tuple[str, ...] = ()
    error: str = ""
    retry_after_s: float | None = None
    stored: bool = False


async def chat_once(user: Client, text: str, conversation: str, **options: Any) -> Heard:
    """Send one message on the instant tier and hear the reply to its end; errors are told."""
    began = time.monotonic()
    first_frame = first_text = 0.0
    try:
        chat = user.chat(text, conversation_id=conversation, tier="instant", **options)
        async with aclosing(chat) as frames:
            async for frame in frames:
                passed = time.monotonic() - began
                first_frame = first_frame or passed
                if isinstance(frame, Text):
                    first_text = first_text or passed
                if isinstance(frame, Final):
                    stored = frame.message_stored == frame.reply_stored == "stored"
                    heard = Heard(began, first_frame, first_text, passed, frame.degraded)
                    return Heard(**{**heard.__dict__, "stored": stored})
    except EchomeshError as error:
        late = time.monotonic() - began
        reason = error.reason or error.code.name
        return Heard(began, total_s=late, error=reason, retry_after_s=error.retry_after)
    return Heard(began, total_s=time.monotonic() - began, error="NO_FINAL_FRAME")


async def settle(client: Client, count: int, memories: int) -> list[Client]:
    """`count` users with `memories` each, stored and indexed."""
    users = [client.as_user(f"bench-{number}") for number in range(count)]
    places = asyncio.Semaphore(_AT_ONCE)

    async def furnish(number: int, user: Client) -> None:
        async with places:
            stored = (await user.index_status())[0]
            if stored < memories:
                await user.import_messages("history", sample_history(memories, number * 7))

    began = time.monotonic()
    await asyncio.gather(*(furnish(number, user) for number, user in enumerate(users)))
    progress(f"{count} people with {memories} memories stored in {time.monotonic() - began:.0f} s")
    await wait_indexed(users)
    progress(f"indexed after {time.monotonic() - began:.0f} s")
    return users


async def wait_indexed(users: Sequence[Client]) -> None:
    """Return when nothing of these users waits for the index."""
    for user in users:
        while (await user.index_status())[1]:
            await asyncio.sleep(_POLL_S)


async def wait_whole(user: Client) -> None:
    """Return when recall does without nothing: the index and the embeddings are there."""
    while (await user.recall("hello", limit=1)).degraded:
        await asyncio.sleep(_POLL_S)


def client_of(mesh: RunningMesh) -> Client:
    """A client with the key of the mesh's first application."""
    return Client(mesh.file.address, api_key=mesh.credentials.api_key, timeout_s=30.0)
