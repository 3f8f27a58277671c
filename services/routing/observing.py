"""What a chat's span says of it, and the metrics of replies. Ids, names and numbers only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry import trace
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from services.routing.breaker import BreakerState
from services.routing.domain import (
    Decision,
    Final,
    Frame,
    MemoriesUsed,
    Progress,
    Restart,
    Stage,
    TextDelta,
    TurnRequest,
)
from services.routing.targets import TargetBook
from services.runtime import tracing
from services.runtime.identity import Identity
from services.runtime.metrics import counter, exemplar, histogram

# Each tier's promise is a bound, so that what kept it can be counted exactly.
FIRST_TEXT_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

_REPLIES = counter("echomesh_replies_total", "Replies by model and finish.", ("model", "finish"))
_FIRST_TEXT = histogram(
    "echomesh_first_text_seconds",
    "Time to the first text of the kept reply.",
    ("tier", "model"),
    FIRST_TEXT_BUCKETS_S,
)
_DEGRADED = counter(
    "echomesh_degraded_replies_total",
    "Replies without a part, by part and why.",
    ("part", "reason"),
)


def breaker_gauges(book: TargetBook, now: float) -> Iterable[Metric]:
    """Return for each model that was tried whether its breaker lets ordinary calls through."""
    opened = GaugeMetricFamily(
        "echomesh_breaker_open",
        "1 while a model is passed over for its failures.",
        labels=("model",),
    )
    for model, state in book.states(now).items():
        opened.add_metric((model,), float(state is BreakerState.OPEN))
    return (opened,)


class ChatObserver:
    """Follows the frames of one Chat call, on the span that is current when it is made."""

    def __init__(self, turn: TurnRequest, identity: Identity) -> None:
        self._span = trace.get_current_span()
        self._speaking = False
        self._span.set_attributes(
            {
                tracing.CONVERSATION: turn.conversation_id,
                tracing.USER_ID: identity.user_id,
                "echomesh.tenant.id": identity.tenant_id,
                "echomesh.request.id": turn.request_id,
            }
        )

    def saw(self, frame: Frame) -> None:
        """Note a frame: an event of the span; the final one also counts."""
        match frame:
            case Decision():
                self._event(
                    "decision", model=frame.model, reason=frame.reason, tier=frame.tier.name
                )
            case MemoriesUsed():
                self._event("memories", count=len(frame.memories))
            case Progress(stage=Stage.QUEUED):
                self._event("queued", position=frame.position)
            case TextDelta() if not self._speaking:
                self._speaking = True
                self._event("first_text")
            case Restart():
                self._speaking = False
                self._event("restart", reason=frame.reason)
            case Final():
                self._final(frame)
            case _:
                pass

    def _event(self, name: str, **attributes: Any) -> None:
        self._span.add_event(f"echomesh.{name}", attributes)

    def _final(self, final: Final) -> None:
        self._span.set_attributes(_final_attributes(final))
        found = exemplar(self._span)
        _REPLIES.labels(final.model, final.finish_reason.name).inc(exemplar=found)
        for part, why in final.degraded.items():
            _DEGRADED.labels(part, why or "unknown").inc(exemplar=found)
        if final.first_text_s is not None:
            first_text = _FIRST_TEXT.labels(final.tier.name, final.model)
            first_text.observe(final.first_text_s, found)


def _final_attributes(final: Final) -> Mapping[str, Any]:
    return {
        tracing.RESPONSE_MODEL: final.model,
        tracing.FINISH_REASONS: [final.finish_reason.name.lower()],
        "echomesh.tier": final.tier.name.lower(),
        "echomesh.message.id": final.message_id,
        "echomesh.reply.id": final.reply_id,
        "echomesh.message.stored": final.message_stored.name.lower(),
        "echomesh.reply.stored": final.reply_stored.name.lower(),
        **_left_out(final),
    }


def _left_out(final: Final) -> Mapping[str, Any]:
    """The parts left out, on replies that lack any: the collector keeps their traces."""
    if not final.degraded:
        return {}
    return {"echomesh.degraded": [f"{part}: {why}" for part, why in final.degraded.items()]}
