"""Summing up py-spy's collapsed stacks."""

from __future__ import annotations

from tests.bench.profiling import OTHER, by_area, collapsed

LOOP = "run (uvloop/__init__.py:96)"
HANDLER = "Chat (services/routing/service.py:40)"


def test_a_sample_counts_for_the_innermost_known_package() -> None:
    """Our handler inside gRPC inside the loop is product code; what it calls is its own."""
    stacks = collapsed(
        [
            f"{LOOP};_handle (grpc/aio/_server.py:1);{HANDLER} 6",
            f"{LOOP};{HANDLER};fetch (site-packages/asyncpg/connection.py:7) 3",
            f"{LOOP} 1",
        ]
    )
    assert by_area(stacks) == {"product code": 0.6, "postgres client": 0.3, OTHER: 0.1}


def test_frames_of_every_stack_are_no_product_code() -> None:
    """A process that waits in its loop was started by our own module all the same."""
    stacks = collapsed(["<module> (services/memory/__main__.py:9);run (asyncio/runners.py:1) 4"])
    assert by_area(stacks) == {OTHER: 1.0}


def test_waiting_is_no_work() -> None:
    """Native stacks that wait for a lock or for the network are not counted."""
    waiting = [f"{LOOP};PyThread_acquire_lock_timed (libpython3.so) 90", f"{LOOP};epoll_wait (l) 9"]
    assert sum(collapsed([*waiting, f"{LOOP};{HANDLER} 2", "no count"]).values()) == 2
