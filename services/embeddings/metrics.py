"""What the service counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.runtime.metrics import counter, gauge, histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.embeddings.batching import Priority
    from services.embeddings.vectors import Embedding

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32)


class EngineMetrics:
    """The engine's metrics, in the process's registry."""

    def __init__(self) -> None:
        self._queue = gauge(
            "echomesh_embeddings_queue_texts", "Texts that wait for a batch.", ["priority"]
        )
        self._refused = counter(
            "echomesh_embeddings_refused_texts_total",
            "Texts refused by a full queue.",
            ["priority"],
        )
        self._dropped = counter(
            "echomesh_embeddings_dropped_texts_total",
            "Texts dropped from the queue because nobody waits for them any more.",
            ["cause"],
        )
        self._lookups = counter(
            "echomesh_embeddings_lookups_total",
            "Distinct texts asked for: hit (cached), joined (already in flight) or miss.",
            ["result"],
        )
        self._cache_bytes = gauge("echomesh_embeddings_cache_bytes", "Size of the cache.")
        self._batch = histogram(
            "echomesh_embeddings_batch_texts", "Texts in a batch.", buckets=BATCH_BUCKETS
        )
        self._tokens = counter("echomesh_embeddings_tokens_total", "Tokens read by the model.")
        self._truncated = counter(
            "echomesh_embeddings_truncated_texts_total", "Texts longer than the model reads."
        )
        self._seconds = histogram("echomesh_embeddings_inference_seconds", "Time of one batch.")

    def queued(self, priority: Priority, texts: int) -> None:
        """The texts that wait now, of one priority."""
        self._queue.labels(priority.name.lower()).set(texts)

    def refused(self, priority: Priority, texts: int) -> None:
        """A request of so many new texts was refused."""
        self._refused.labels(priority.name.lower()).inc(texts)

    def dropped(self, cause: str) -> None:
        """A text left the queue unread: ``cancelled`` or ``expired``."""
        self._dropped.labels(cause).inc()

    def looked_up(self, *, hits: int, joined: int, misses: int) -> None:
        """How a request's distinct texts were found."""
        for result, texts in (("hit", hits), ("joined", joined), ("miss", misses)):
            self._lookups.labels(result).inc(texts)

    def batch_done(self, results: Sequence[Embedding], seconds: float, cache_bytes: int) -> None:
        """One batch was computed and cached."""
        self._batch.observe(len(results))
        self._seconds.observe(seconds)
        self._tokens.inc(sum(result.tokens for result in results))
        self._truncated.inc(sum(result.truncated for result in results))
        self._cache_bytes.set(cache_bytes)
