"""What is seen of a model from outside: a span for each reply, and metrics for each model.

The span's names are those of OpenTelemetry's conventions for generative AI. No text is recorded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from services.models.domain import Event, Finish, Generation, ModelCard, State
from services.runtime import tracing
from services.runtime.errors import AppError
from services.runtime.metrics import counter, exemplar, histogram

# How a reply that ended well counts; another outcome is `cancelled` or an error's reason.
OK, CANCELLED = "ok", "cancelled"

_TRACER = trace.get_tracer("echomesh.models")
_REQUESTS = counter(
    "echomesh_model_requests_total", "Replies asked of a model by outcome.", ("model", "outcome")
)
_FIRST_TEXT = histogram(
    "echomesh_model_first_text_seconds", "Time to a model's first text or tool call.", ("model",)
)
_TOKENS = counter(
    "echomesh_model_tokens_total", "Tokens: prompt, of those cached, completion.", ("model", "kind")
)


async def observed(
    events: AsyncGenerator[Event, None], request: Generation, card: ModelCard
) -> AsyncGenerator[Event, None]:
    """Pass on the events of a reply, inside its span; what the model's backend calls is below it.

    Closing this iterator closes `events`.
    """
    with _TRACER.start_as_current_span(
        f"chat {card.id}",
        kind=SpanKind.CLIENT if card.generative else SpanKind.INTERNAL,
        attributes=_asked(request, card),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        reply = _Reply(card.id, span)
        try:
            async with aclosing(events):
                async for event in events:
                    reply.saw(event)
                    yield event
        except AppError as error:
            reply.end(error.reason.value)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            reply.end(CANCELLED)
            raise
        except Exception as error:
            reply.end(type(error).__name__)
            raise
        reply.end(OK)


def _asked(request: Generation, card: ModelCard) -> dict[str, str | int]:
    asked = {tracing.OPERATION: "chat", tracing.PROVIDER: card.backend}
    asked[tracing.REQUEST_MODEL] = card.id
    most = request.sampling.max_tokens
    return {**asked, "gen_ai.request.max_tokens": most} if most else {**asked}


class _Reply:
    """What is measured of one reply."""

    def __init__(self, model: str, span: trace.Span) -> None:
        self._model = model
        self._span = span
        self._began = time.monotonic()
        self._spoke = False
        self._finished = False

    def saw(self, event: Event) -> None:
        if isinstance(event, Finish):
            self._finish(event)
        elif not self._spoke:
            self._spoke = True
            elapsed_s = time.monotonic() - self._began
            self._span.set_attribute(tracing.FIRST_CHUNK_S, elapsed_s)
            self._span.add_event("echomesh.first_text")
            _FIRST_TEXT.labels(self._model).observe(elapsed_s, exemplar(self._span))

    def _finish(self, finish: Finish) -> None:
        self._finished = True
        usage = finish.usage
        self._span.set_attributes(
            {
                tracing.RESPONSE_MODEL: finish.model or self._model,
                tracing.FINISH_REASONS: [finish.reason.value],
                tracing.INPUT_TOKENS: usage.prompt_tokens,
                tracing.OUTPUT_TOKENS: usage.completion_tokens,
                tracing.CACHED_TOKENS: usage.cached_tokens,
            }
        )
        _TOKENS.labels(self._model, "prompt").inc(usage.prompt_tokens)
        _TOKENS.labels(self._model, "cached").inc(usage.cached_tokens)
        _TOKENS.labels(self._model, "completion").inc(usage.completion_tokens)

    def end(self, outcome: str) -> None:
        """Count the reply; one whose finish was passed on is whole, however its reader left."""
        if outcome == CANCELLED and self._finished:
            outcome = OK
        _REQUESTS.labels(self._model, outcome).inc(exemplar=exemplar(self._span))
        if outcome != OK:
            self._span.set_attribute(tracing.ERROR_TYPE, outcome)
            self._span.set_status(StatusCode.ERROR, outcome)


def model_gauges(models: Callable[[], Iterable[ModelCard]]) -> Iterable[Metric]:
    """Return the gauges of all models as they stand: state, replies under way and waiting."""
    state = GaugeMetricFamily(
        "echomesh_model_state", "1 for the state a model is in.", labels=("model", "state")
    )
    running = GaugeMetricFamily(
        "echomesh_model_running", "Replies that a model is writing.", labels=("model",)
    )
    waiting = GaugeMetricFamily(
        "echomesh_model_waiting", "Replies that wait for a model.", labels=("model",)
    )
    for card in models():
        running.add_metric((card.id,), card.running)
        waiting.add_metric((card.id,), card.waiting)
        for each in State:
            state.add_metric((card.id, each.value), float(card.state is each))
    return (state, running, waiting)
