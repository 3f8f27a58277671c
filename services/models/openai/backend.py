"""OpenAI-compatible servers as a backend: who is there, how often to try, how many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)

from services.models.config import Upstream
from services.models.domain import Event, Generation, ModelCard, State
from services.models.openai.pace import Pace, Strained
from services.models.openai.upstream import Server
from services.models.openai.wire import ListedModel
from services.runtime.clock import Clock
from services.runtime.deadline import remaining_s
from services.runtime.errors import AppError, Reason
from services.runtime.logs import get_logger

BACKEND = "openai"

# A server that appears is there within this; one that stands is looked at less often.
PROBE_AWAY_S = 2.0
PROBE_READY_S = 15.0
_PROBE_TIMEOUT_S = 5.0
_MAX_MODELS = 200

_BACKOFF_FIRST_S = 0.2
_BACKOFF_MAX_S = 2.0
_WORTH_A_RETRY = frozenset((Reason.MODEL_UNAVAILABLE, Reason.MODEL_BAD_RESPONSE, Reason.OVERLOADED))


class OpenAIBackend:
    """One configured server and its models.

    Args:
        upstream: where it is and its limits.
        server: the connection to it; the caller closes it.
        clock: measures how soon it answers.

    """

    def __init__(self, upstream: Upstream, server: Server, clock: Clock) -> None:
        self._upstream = upstream
        self._server = server
        self._pace = Pace(upstream, clock)
        self._state = State.AWAY
        self._was_there = False
        self._listed: Sequence[ListedModel] = ()
        self._look = asyncio.Event()

    def models(self) -> Sequence[ModelCard]:
        """Returns the configured model, or all that the server listed last."""
        return [self._card(model) for model in self._offered()]

    @property
    def limit(self) -> int:
        """How many replies the server is asked for at once now."""
        return self._pace.limit

    async def generate(self, request: Generation, card: ModelCard) -> AsyncGenerator[Event, None]:
        """See `Backend.generate`; tries again with back-off, but only before the first text."""
        async with self._pace.place():
            first, rest = await self._begin(request, card.id)
            async with aclosing(rest):
                yield first
                try:
                    async for event in rest:
                        yield event
                except AppError:
                    # Whether only this reply broke off or the server has gone is soon known.
                    self._look.set()
                    raise

    async def probe(self) -> None:
        """Looks once whether the server is there and what it offers."""
        try:
            self._listed = (await self._server.models(_PROBE_TIMEOUT_S))[:_MAX_MODELS]
            self._turn(State.READY)
        except AppError as error:
            self._turn(State.AWAY, error.message)

    async def keep_probing(self) -> None:
        """Looks for ever; sooner when a call has just failed."""
        while True:
            # Before the look: a call that fails during it may know better.
            self._look.clear()
            try:
                await self.probe()
            except Exception:
                # A server's oddity that nobody foresaw must not end the looking.
                get_logger().exception("upstream_probe_failed")
                self._turn(State.AWAY, "its answer is not understood")
            period_s = PROBE_READY_S if self._state is State.READY else PROBE_AWAY_S
            try:
                async with asyncio.timeout(period_s):
                    await self._look.wait()
            except TimeoutError:
                continue

    def _offered(self) -> Sequence[ListedModel]:
        named = self._upstream.model
        if not named:
            return self._listed
        return [next((m for m in self._listed if m.name == named), ListedModel(named))]

    def _card(self, model: ListedModel) -> ModelCard:
        return ModelCard(
            id=f"{self._upstream.name}/{model.name}",
            backend=BACKEND,
            state=self._state,
            context_length=self._upstream.context_length or model.context_length,
            tools=self._upstream.tools,
            json_schema=self._upstream.json_schema,
            logprobs=self._upstream.logprobs,
            parameters=model.parameters,
            running=self._pace.running,
            waiting=self._pace.waiting,
        )

    def _turn(self, state: State, why: str = "") -> None:
        if state is not self._state:
            get_logger().info(
                "upstream_state", upstream=self._upstream.name, state=state.value, why=why
            )
            if state is State.READY and self._was_there:
                self._pace.start_slowly()
        self._state = state
        self._was_there = self._was_there or state is State.READY

    async def _begin(
        self, request: Generation, model: str
    ) -> tuple[Event, AsyncGenerator[Event, None]]:
        """The first event of the attempt that gave one, and the rest of that attempt."""
        name = model.removeprefix(f"{self._upstream.name}/")
        tries = AsyncRetrying(
            stop=stop_after_attempt(self._upstream.retries + 1),
            wait=_wait,
            retry=retry_if_exception(_worth_a_retry),
            reraise=True,
        )
        try:
            return await tries(self._first, request, name, model)
        except AppError as error:
            if error.reason is Reason.MODEL_UNAVAILABLE:
                # One that is full or late is there all the same: it is only asked less.
                if not isinstance(error, Strained):
                    self._turn(State.AWAY, error.message)
                self._look.set()
            raise

    async def _first(
        self, request: Generation, name: str, model: str
    ) -> tuple[Event, AsyncGenerator[Event, None]]:
        stream = self._server.attempt(request, name, model)
        try:
            with self._pace.first_text(self._prompt_chars(request)):
                return await anext(stream), stream
        except BaseException:
            async with aclosing(stream):
                raise

    def _prompt_chars(self, request: Generation) -> int | None:
        """Length of the prompt; None where the first that comes may be the end of all."""
        if request.tools or not self._server.streams:
            return None
        return sum(len(message.content) for message in request.messages)


_backoff = wait_exponential_jitter(multiplier=_BACKOFF_FIRST_S, max=_BACKOFF_MAX_S)


def _wait(state: RetryCallState) -> float:
    """Back-off, or what an overloaded server asked for if that is short."""
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.retry_after_s if isinstance(error, AppError) else None
    backoff_s = float(_backoff(state))
    if isinstance(error, AppError) and error.reason is Reason.OVERLOADED and asked_s:
        return max(backoff_s, min(asked_s, _BACKOFF_MAX_S))
    return backoff_s


def _worth_a_retry(error: BaseException) -> bool:
    """Whether another try may succeed, and there is time for it."""
    if not isinstance(error, AppError) or error.reason not in _WORTH_A_RETRY:
        return False
    return remaining_s() > _BACKOFF_MAX_S
