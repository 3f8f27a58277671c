"""What vLLM says of itself at each step: that it goes on, and how much it has to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.models.engines.engine import Load, Step


class Pulse:
    """A stat logger of vLLM.

    While the engine makes steps no request is stuck, also one that waits for its turn or whose long
    prompt is read piece by piece: each step counts for all.
    """

    def __init__(self) -> None:
        self.load = Load()
        self._felt_by: dict[object, Step] = {}

    def __call__(self, vllm_config: Any, engine_index: int = 0) -> Pulse:
        """Be the logger of an engine: vLLM asks a factory for it."""
        return self

    def record(self, scheduler_stats: Any, iteration_stats: Any, **_: Any) -> None:
        """Take what vLLM tells after a step."""
        for step in self._felt_by.values():
            step()
        if scheduler_stats is not None:
            self.load = Load(scheduler_stats.num_running_reqs, scheduler_stats.num_waiting_reqs)

    @contextmanager
    def felt_by(self, step: Step) -> Iterator[None]:
        """Call `step` at each step of the engine meanwhile."""
        key = object()
        self._felt_by[key] = step
        try:
            yield
        finally:
            del self._felt_by[key]

    def log_engine_initialized(self) -> None:
        """Do nothing: part of vLLM's interface."""

    def log(self) -> None:
        """Do nothing: part of vLLM's interface."""

    def record_sleep_state(self, *_: Any, **__: Any) -> None:
        """Do nothing: part of vLLM's interface."""
