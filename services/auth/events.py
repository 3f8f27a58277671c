"""What an operator wants to know of sign-ins and keys: counted always, logged where it matters."""

from __future__ import annotations

from services.runtime.logs import get_logger
from services.runtime.metrics import counter

_EVENTS = counter("echomesh_auth_events_total", "Sign-ins, refusals and key changes.", ("event",))


def record(event: str) -> None:
    """Count an everyday event, such as `login`."""
    _EVENTS.labels(event).inc()


def alert(event: str, **fields: str) -> None:
    """Count and log an event that may be an attack or changes who may do what; no secrets."""
    record(event)
    get_logger().warning(event, **fields)
