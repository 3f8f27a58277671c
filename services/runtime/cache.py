"""A bounded in-process cache: least recently used goes first; bounds by items and by bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.runtime.clock import Clock, SystemClock

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class CacheStats:
    """What a cache has done since it was made, and what it holds now."""

    hits: int
    misses: int
    evictions: int
    expirations: int
    items: int
    size_bytes: int


@dataclass(frozen=True)
class _Entry(Generic[V]):
    value: V
    size_bytes: int
    expires_at: float | None


def _no_size(_: object) -> int:
    return 0


class BoundedCache(Generic[K, V]):
    """Cache with at most `max_items` entries and `max_bytes` bytes (None: that bound is off).

    `size_of` gives a value's size in bytes; it is required with `max_bytes`. An entry is gone
    `ttl_s` seconds after it was put (None: never), or at the time that `put` is told.
    A value larger than the whole byte bound is not kept. Not for use from several threads.
    """

    def __init__(
        self,
        *,
        max_items: int | None = None,
        max_bytes: int | None = None,
        ttl_s: float | None = None,
        size_of: Callable[[V], int] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if max_items is None and max_bytes is None:
            raise ValueError("a cache needs a bound: max_items or max_bytes")
        if max_bytes is not None and size_of is None:
            raise ValueError("max_bytes needs size_of")
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._size_of: Callable[[V], int] = size_of or _no_size
        self._clock: Clock = clock or SystemClock()
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._size_bytes = 0
        self._hits = self._misses = self._evictions = self._expirations = 0

    def get(self, key: K) -> V | None:
        """Return the live value of `key` and mark it as used, or None."""
        entry = self._entries.get(key)
        if entry is not None and self._expired(entry):
            self._drop(key)
            self._expirations += 1
            entry = None
        if entry is None:
            self._misses += 1
            return None
        self._entries.move_to_end(key)
        self._hits += 1
        return entry.value

    def put(self, key: K, value: V, *, ttl_s: float | None = None) -> None:
        """Keep `value` under `key`; `ttl_s` (seconds) overrides the cache's own for this entry."""
        self.discard(key)
        size = self._size_of(value)
        if self._max_bytes is not None and size > self._max_bytes:
            return
        ttl = self._ttl_s if ttl_s is None else ttl_s
        expires_at = None if ttl is None else self._clock.monotonic() + ttl
        self._entries[key] = _Entry(value, size, expires_at)
        self._size_bytes += size
        self._shrink()

    def discard(self, key: K) -> None:
        """Forget `key` if it is there."""
        if key in self._entries:
            self._drop(key)

    def clear(self) -> None:
        """Forget everything; the counters stay."""
        self._entries.clear()
        self._size_bytes = 0

    def stats(self) -> CacheStats:
        """Return the counters and the present size."""
        return CacheStats(
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            expirations=self._expirations,
            items=len(self._entries),
            size_bytes=self._size_bytes,
        )

    def __len__(self) -> int:
        return len(self._entries)

    def _expired(self, entry: _Entry[V]) -> bool:
        return entry.expires_at is not None and self._clock.monotonic() >= entry.expires_at

    def _drop(self, key: K) -> None:
        self._size_bytes -= self._entries.pop(key).size_bytes

    def _over(self) -> bool:
        too_many = self._max_items is not None and len(self._entries) > self._max_items
        too_big = self._max_bytes is not None and self._size_bytes > self._max_bytes
        return too_many or too_big

    def _shrink(self) -> None:
        while self._over():
            self._drop(next(iter(self._entries)))
            self._evictions += 1
