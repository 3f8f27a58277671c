"""An engine of our own as a backend: its worker kept alive, its requests admitted and passed on."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from echomesh.worker.v1 import engine_pb2 as pb
from echomesh.worker.v1.engine_pb2_grpc import EngineWorkerServiceStub
from services.models.convert import event_from, request_from
from services.models.domain import Event, Generation, ModelCard, State, Vector
from services.models.engines.engine import OTLP_VARIABLE, Load, SleepLevel
from services.models.engines.settings import EngineModel
from services.models.failures import away
from services.runtime.deadline import remaining_s
from services.runtime.errors import AppError, Reason
from services.runtime.limits import Gate
from services.runtime.status import from_rpc_error
from services.runtime.supervisor import (
    WorkerLimits,
    WorkerState,
    WorkerSupervisor,
    answers_or_away,
)
from services.runtime.tracing import trace_metadata

if TYPE_CHECKING:
    from echomesh.worker.v1.engine_pb2_grpc import EngineWorkerServiceAsyncStub

_DESCRIBE_LIMIT_S = 5.0
_COUNT_LIMIT_S = 5.0
# Moving the weights of a large model takes seconds; reading them again from a disk, minutes.
_SLEEP_LIMIT_S = 60.0
_WAKE_LIMIT_S = 600.0
# What a worker's end looks like from here; its request can be asked again of its successor.
_GONE = frozenset((Reason.DEPENDENCY_UNAVAILABLE, Reason.INTERNAL))
_LEVELS = {
    SleepLevel.KEEP_WEIGHTS: pb.SLEEP_LEVEL_KEEP_WEIGHTS,
    SleepLevel.DROP_WEIGHTS: pb.SLEEP_LEVEL_DROP_WEIGHTS,
}
_WORKER = "services.models.engines.worker"


class EngineBackend:
    """One model in a worker of its own.

    Args:
        model: what to serve.
        socket_folder: private folder with a short path.
        number: tells its worker from the others of this service.
        limits: how patient to be with the worker.
        otlp_endpoint: where an engine with spans of its own sends them.

    """

    def __init__(
        self,
        model: EngineModel,
        socket_folder: Path,
        number: int = 0,
        limits: WorkerLimits | None = None,
        otlp_endpoint: str | None = None,
    ) -> None:
        self._model = model
        self._gate = Gate(*model.admitted, name=model.id)
        self._described = pb.DescribeResponse()
        self._asleep = False
        self._worker = WorkerSupervisor(
            f"engine{number}",
            [sys.executable, "-m", _WORKER, model.model_dump_json()],
            socket_folder,
            env={OTLP_VARIABLE: otlp_endpoint} if otlp_endpoint else None,
            limits=limits or WorkerLimits(start_limit_s=model.load_limit_s),
            prepare=self._describe,
        )

    async def start(self) -> None:
        """Begin to run the worker; the model is listed as loading until it is there."""
        await self._worker.start()

    async def close(self) -> None:
        """Stop the worker."""
        await self._worker.stop()

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker that runs now."""
        return self._worker.pid

    def models(self) -> Sequence[ModelCard]:
        """Return the one model, as it stands."""
        known = self._described
        state, detail = self._state()
        return [
            ModelCard(
                id=self._model.id,
                backend=self._model.engine,
                state=state,
                context_length=known.context_length or self._model.context_length,
                tools=known.tools,
                json_schema=known.json_schema,
                generative=not known.embeds,
                detail=detail,
                lora_adapters=tuple(known.lora_adapters),
                logprobs=known.logprobs,
                embeds=known.embeds,
                parameters=known.parameters,
                running=self._gate.running,
                waiting=self._gate.waiting,
            )
        ]

    def _state(self) -> tuple[State, str]:
        worker = self._worker
        if worker.state is WorkerState.READY:
            return (State.ASLEEP, "it sleeps") if self._asleep else (State.READY, "")
        if worker.failure:
            return State.AWAY, worker.failure
        if worker.state is WorkerState.STARTING:
            return State.LOADING, worker.doing or "starting"
        return State.AWAY, "its engine is started again"

    async def _describe(self, channel: grpc.aio.Channel) -> None:
        request = pb.DescribeRequest()
        stub: EngineWorkerServiceAsyncStub = EngineWorkerServiceStub(channel)
        self._described = await stub.Describe(request, timeout=_DESCRIBE_LIMIT_S)
        self._asleep = False

    async def generate(self, request: Generation, card: ModelCard) -> AsyncGenerator[Event, None]:
        """See `Backend.generate`."""
        async with self._gate:
            call = self._stub().Generate(
                pb.GenerateRequest(generation=request_from(request)),
                timeout=remaining_s(),
                metadata=trace_metadata(),
            )
            try:
                with self._answering():
                    async for message in call:
                        yield event_from(message.event)
            finally:
                call.cancel()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Surround a call to the worker: its errors are those of the model."""
        try:
            with answers_or_away(self._worker.name):
                yield
        except grpc.aio.AioRpcError as error:
            raise self._meaning(from_rpc_error(error, self._model.id)) from error
        except AppError as error:
            raise self._meaning(error) from error

    def _meaning(self, error: AppError) -> AppError:
        if error.reason in _GONE:
            return away(self._model.id, "broke off: its engine ended")
        return error

    def _stub(self) -> EngineWorkerServiceAsyncStub:
        try:
            return EngineWorkerServiceStub(self._worker.channel())
        except AppError as error:
            raise away(self._model.id, "is away: its engine is not there") from error

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens of this model each text is; raises MODEL_UNAVAILABLE."""
        request = pb.CountTokensRequest(texts=texts)
        try:
            with self._answering():
                timeout_s = min(_COUNT_LIMIT_S, remaining_s())
                answer = await self._stub().CountTokens(request, timeout=timeout_s)
        except AppError as error:
            if error.reason is Reason.DEADLINE_EXCEEDED and remaining_s() > 0:
                raise away(self._model.id, "does not count") from error
            raise
        return list(answer.tokens)

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Return a vector for each text; raises what `generate` does."""
        async with self._gate:
            with self._answering():
                answer = await self._stub().Embed(
                    pb.EmbedRequest(texts=texts), timeout=remaining_s(), metadata=trace_metadata()
                )
        return [Vector(one.vector, one.tokens, one.truncated) for one in answer.embeddings]

    async def load(self) -> Load:
        """Return what the engine works on now; raises MODEL_UNAVAILABLE."""
        with self._answering():
            told = await self._stub().Describe(pb.DescribeRequest(), timeout=_DESCRIBE_LIMIT_S)
        return Load(told.running_requests, told.waiting_requests)

    async def sleep(self, level: SleepLevel) -> None:
        """Let the model give its GPU's memory free; it is listed as asleep.

        Raises:
            AppError: MODEL_LACKS_ABILITY, or MODEL_UNAVAILABLE.

        """
        with self._answering():
            request = pb.SleepRequest(level=_LEVELS[level])
            await self._stub().Sleep(request, timeout=_SLEEP_LIMIT_S)
        self._asleep = True

    async def wake(self) -> None:
        """Wake the model.

        Raises:
            AppError: MODEL_BAD_RESPONSE when it does not answer as before; its worker is replaced.

        """
        with self._answering():
            await self._stub().Wake(pb.WakeRequest(), timeout=_WAKE_LIMIT_S)
        self._asleep = False
