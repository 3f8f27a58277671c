"""The bounded cache keeps within its bounds and forgets in the right order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.cache import BoundedCache
from services.runtime.clock import FakeClock


def test_the_least_recently_used_entry_goes_first() -> None:
    """Reading an entry saves it from eviction."""
    cache: BoundedCache[str, int] = BoundedCache(max_items=2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    cache.put("c", 3)

    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert cache.stats().evictions == 1


def test_an_entry_is_gone_after_its_time_to_live() -> None:
    """An entry's own time to live beats the cache's."""
    clock = FakeClock()
    cache: BoundedCache[str, int] = BoundedCache(max_items=9, ttl_s=10, clock=clock)
    cache.put("a", 1)
    cache.put("b", 2, ttl_s=60)
    clock.advance(10)

    assert (cache.get("a"), cache.get("b")) == (None, 2)
    assert cache.stats().expirations == 1


def test_a_value_larger_than_the_cache_is_not_kept() -> None:
    """One huge value does not push out everything else."""
    cache: BoundedCache[str, bytes] = BoundedCache(max_bytes=10, size_of=len)
    cache.put("a", b"x" * 5)
    cache.put("b", b"x" * 11)

    assert (cache.get("a"), cache.get("b")) == (b"xxxxx", None)


def test_a_cache_without_a_bound_is_refused() -> None:
    """Every cache has a bound, and a byte bound needs a size."""
    with pytest.raises(ValueError, match="bound"):
        BoundedCache()
    with pytest.raises(ValueError, match="size_of"):
        BoundedCache(max_bytes=1)


@given(st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=12)), max_size=60))
def test_the_bounds_hold_after_any_sequence(puts: list[tuple[int, bytes]]) -> None:
    """Items and bytes never pass their bounds and the byte count is exact."""
    cache: BoundedCache[int, bytes] = BoundedCache(max_items=4, max_bytes=20, size_of=len)
    for key, value in puts:
        cache.put(key, value)
        held = [v for k in range(10) if (v := cache.get(k)) is not None]

        assert cache.stats().items == len(held) <= 4
        assert cache.stats().size_bytes == sum(map(len, held)) <= 20
