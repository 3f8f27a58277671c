"""The works that wait, and how many may: between a request's arrival and its batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.embeddings.batching import BatchLimits, Lanes, Priority
from services.runtime.errors import AppError, Reason

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from services.embeddings.vectors import Embedding, Tokens

LEAST_RETRY_S = 0.1
LONGEST_RETRY_S = 5.0


@dataclass(frozen=True)
class QueueLimits:
    """What may wait, per priority: so many texts, of so many bytes of text together."""

    texts: int = 2048
    text_bytes: int = 16 << 20


@dataclass(eq=False)
class Work:
    """One distinct text on its way to its vectors, and everyone who waits for it.

    `deadline` is the latest of the waiters' (monotonic seconds); `priority` the most urgent.
    """

    key: bytes
    text: str
    future: asyncio.Future[Embedding]
    priority: Priority
    deadline: float
    waiters: int = 0
    tokens: Tokens | None = None
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.size_bytes = len(self.text.encode())

    @property
    def wanted(self) -> bool:
        """False once it was abandoned or answered."""
        return not self.future.done()


class Backlog:
    """Waiting works in two steps: fresh (not cut into tokens yet), then ready for a batch."""

    def __init__(self, limits: QueueLimits, batches: BatchLimits) -> None:
        self._limits = limits
        self._waiting: dict[Work, None] = {}
        self._fresh: dict[Work, None] = {}
        self._ready: Lanes[Work] = Lanes(batches)
        self._texts = dict.fromkeys(Priority, 0)
        self._bytes = dict.fromkeys(Priority, 0)

    def texts(self, priority: Priority) -> int:
        """How many texts of one priority wait."""
        return self._texts[priority]

    @property
    def has_fresh(self) -> bool:
        """True if something waits to be cut into tokens."""
        return bool(self._fresh)

    @property
    def ready(self) -> int:
        """How many texts wait for nothing but a batch."""
        return len(self._ready)

    def admit(self, works: Sequence[Work], priority: Priority, seconds_per_text: float) -> None:
        """Add all of `works`, or none: raises AppError OVERLOADED with a time to retry."""
        texts = self._texts[priority] + len(works)
        size = self._bytes[priority] + sum(work.size_bytes for work in works)
        full = texts > self._limits.texts or size > self._limits.text_bytes
        if full and self._texts[priority]:
            wait_s = self._texts[priority] * seconds_per_text
            raise AppError(
                Reason.OVERLOADED,
                "too many texts wait to be embedded; try again later",
                metadata={"queue": "embeddings"},
                retry_after_s=min(max(wait_s, LEAST_RETRY_S), LONGEST_RETRY_S),
            )
        for work in works:
            self._waiting[work] = self._fresh[work] = None
            self._count(work, 1)

    def promote(self, work: Work) -> None:
        """Make a waiting work interactive: somebody waits for it now."""
        if work in self._waiting and work.priority is Priority.BULK:
            self._count(work, -1)
            work.priority = Priority.INTERACTIVE
            self._count(work, 1)
            self._ready.promote(work)

    def discard(self, work: Work) -> bool:
        """Take a work out, wherever it waits; False if its batch has begun already."""
        if work not in self._waiting:
            return False
        self._leave(work)
        self._fresh.pop(work, None)
        self._ready.discard(work)
        return True

    def take_fresh(self, count: int) -> list[Work]:
        """Up to `count` works to cut into tokens, interactive first; they still wait."""
        taken = sorted(self._fresh, key=lambda work: work.priority)[:count]
        for work in taken:
            del self._fresh[work]
        return taken

    def make_ready(self, work: Work, tokens: Tokens) -> None:
        """Let a work that was taken fresh wait for its batch, if it still waits."""
        if work in self._waiting:
            work.tokens = tokens
            self._ready.add(work, len(tokens), work.priority)

    def take_batch(self) -> list[Work]:
        """The next batch; its works wait no longer."""
        batch = self._ready.pop()
        for work in batch:
            self._leave(work)
        return batch

    def _leave(self, work: Work) -> None:
        del self._waiting[work]
        self._count(work, -1)

    def _count(self, work: Work, sign: int) -> None:
        self._texts[work.priority] += sign
        self._bytes[work.priority] += sign * work.size_bytes
